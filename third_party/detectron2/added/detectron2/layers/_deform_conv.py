"""Deformable convolution by torchvision, under the names and arguments of Detectron2's own.

Shape shorthand: N images, C channels, G deformable groups, kernel kh x kw, output H' x W'.
torchvision reads both numbers of groups from the shapes, so they are only accepted here.
"""

from torchvision.ops import deform_conv2d


def deform_conv(
    input,
    offset,
    weight,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    deformable_groups=1,
    im2col_step=64,
):
    """
    Args:
        input: (N, C, H, W)
        offset: (N, 2 * G * kh * kw, H', W'), in pixels of the input, y before x
        weight: (C_out, C / groups, kh, kw)
        im2col_step: not used; it never changed the result
    """
    if input.dim() != 4:
        raise ValueError(f"Expected 4D tensor as input, got {input.dim()}D tensor instead.")
    return deform_conv2d(input, offset, weight, None, stride, padding, dilation)


def modulated_deform_conv(
    input,
    offset,
    mask,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    deformable_groups=1,
):
    """Like `deform_conv`; mask (N, G * kh * kw, H', W') weighs each sample."""
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)

"""The non-local block (Wang et al., arXiv 1711.07971, figure 2), the embedded Gaussian version.

Shape shorthand: N images, C channels of the block, D = C/2 channels inside, H x W cells,
M = H*W cells that are looked at, a quarter of that with subsampling.
"""

from __future__ import annotations

import torch
from detectron2.layers import CNNBlockBase, get_norm
from torch import nn
from torch.nn import functional as F


class ChannelAffine(nn.Module):
    """A weight and a bias for each channel, both trained: what a frozen batch norm is, unfrozen."""

    def __init__(self, num_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape and dtype."""
        # Under autocast x may be half while the parameters are not.
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return x * weight[:, None, None] + bias[:, None, None]


class NonLocalBlock(CNNBlockBase):
    """x + norm(W_z y), y_i = sum over j of softmax_j(theta(x_i) . phi(x_j)) g(x_j).

    Every cell looks at every cell of its own image; cells that batching has padded take part, as
    they do in each convolution around. theta, phi, g and W_z are 1 x 1 convolutions without bias,
    and the products are not scaled, as in equations 3 and 6 of the paper.

    The norm after W_z starts with weight 0 and bias 0 (section 4.1 of the paper), so a new block is
    the identity and can be put into a trained network. Which norm:

    - BN, SyncBN, GN, ...: as everywhere in the network.
    - FrozenBN and "": `ChannelAffine`. A frozen norm has buffers; with weight 0 it would stay the
      identity for ever. BN in its place would bring the statistics of one or two images an
      iteration into a network that froze its norms to be rid of them. An affine layer is what the
      frozen norms beside it are, only trained. SOLVER.WEIGHT_DECAY holds for it;
      WEIGHT_DECAY_NORM does not, since Detectron2 knows its own norms only.
    """

    def __init__(self, channels: int, *, norm: str = "FrozenBN", subsample: bool = True):
        """
        Args:
            channels: C, even
            norm: a name that Detectron2's `get_norm` knows; "" for none
            subsample: pool phi and g by 2 x 2 (maximum), so that the attention has a quarter of
                the pairs: the "subsampling trick" of the paper's section 3.3. Cells at an odd edge
                form smaller groups, so none is left out.
        """
        super().__init__(channels, channels, stride=1)
        if channels < 2 or channels % 2:
            raise ValueError(f"a non-local block halves its channels; got {channels}, which is odd")
        inside = channels // 2
        self.subsample = subsample
        self.theta = nn.Conv2d(channels, inside, 1, bias=False)
        self.phi = nn.Conv2d(channels, inside, 1, bias=False)
        self.g = nn.Conv2d(channels, inside, 1, bias=False)
        self.out = nn.Conv2d(inside, channels, 1, bias=False)
        for conv in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(conv.weight, std=0.01)
        self.norm: nn.Module = (
            ChannelAffine(channels) if norm in ("", "FrozenBN") else get_norm(norm, channels)
        )
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W); H and W of any size, not 0."""
        phi, g = self.phi(x), self.g(x)
        if self.subsample:
            phi = F.max_pool2d(phi, 2, ceil_mode=True)
            g = F.max_pool2d(g, 2, ceil_mode=True)
        y = F.scaled_dot_product_attention(
            _cells(self.theta(x)), _cells(phi), _cells(g), scale=1.0
        )  # (N, 1, H*W, D)
        y = y.squeeze(1).transpose(1, 2).unflatten(2, x.shape[-2:])  # (N, D, H, W)
        return x + self.norm(self.out(y))


def _cells(x: torch.Tensor) -> torch.Tensor:
    # (N, D, H, W) -> (N, 1, H*W, D): one attention head. Contiguous, because torch's kernels that
    # do not write out the H*W x M matrix want a cell's numbers side by side.
    return x.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()

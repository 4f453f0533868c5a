"""From INPUT keys to the list of augmentations of a mapper."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ...errors import UsageError
from ..input_keys import with_input_keys
from .color import ColorJitter
from .copy_paste import CopyPaste
from .crop import InstanceCrop
from .pad import CropOrPad
from .resize import ResizeScale, ResizeShortestEdge


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Colour, crop, resize (shortest edge or large-scale jitter), flip, in this order.

    With Detectron2's keys alone: its augmentations, its random draws, in its order.

    Args:
        cfg: reads INPUT and, for the padding of large-scale jitter, MODEL.PIXEL_MEAN
        is_train: else only the resize to MIN_SIZE_TEST
    Raises:
        UsageError: values that cannot be, or that exclude each other
    """
    cfg = with_input_keys(cfg)
    keys = cfg.INPUT
    if not is_train:
        return [ResizeShortestEdge(keys.MIN_SIZE_TEST, keys.MAX_SIZE_TEST, "choice")]
    augmentations = _color(keys)
    if keys.CROP.ENABLED:
        crop = InstanceCrop if keys.CROP.INSTANCE_AWARE else T.RandomCrop
        augmentations.append(crop(keys.CROP.TYPE, keys.CROP.SIZE))
    if keys.LSJ.ENABLED:
        augmentations += _large_scale_jitter(cfg)
    else:
        style = keys.MIN_SIZE_TRAIN_SAMPLING
        if style not in ("choice", "range"):
            raise UsageError(
                f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {style!r}, expected 'choice' or 'range'"
            )
        if style == "range" and len(keys.MIN_SIZE_TRAIN) != 2:
            raise UsageError(
                f"INPUT.MIN_SIZE_TRAIN is {keys.MIN_SIZE_TRAIN}, expected two values, the smallest "
                "and the largest, with INPUT.MIN_SIZE_TRAIN_SAMPLING 'range'"
            )
        augmentations.append(ResizeShortestEdge(keys.MIN_SIZE_TRAIN, keys.MAX_SIZE_TRAIN, style))
    flip = keys.RANDOM_FLIP
    if flip not in ("none", "horizontal", "vertical"):
        raise UsageError(
            f"INPUT.RANDOM_FLIP is {flip!r}, expected 'none', 'horizontal' or 'vertical'"
        )
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    return augmentations


def build_copy_paste(cfg: CfgNode, is_train: bool) -> CopyPaste | None:
    """What `SampleDataset` pastes with; None if INPUT.COPY_PASTE.PROBABILITY is 0.

    Raises:
        UsageError: no probability, or masks that are polygons
    """
    cfg = with_input_keys(cfg)
    keys = cfg.INPUT.COPY_PASTE
    if not is_train or keys.PROBABILITY == 0:
        return None
    if not 0 <= keys.PROBABILITY <= 1:
        raise UsageError(f"INPUT.COPY_PASTE.PROBABILITY is {keys.PROBABILITY}, expected 0 to 1")
    if cfg.INPUT.MASK_FORMAT != "bitmask" or not cfg.MODEL.MASK_ON:
        raise UsageError(
            f"INPUT.COPY_PASTE.PROBABILITY is {keys.PROBABILITY}, but INPUT.MASK_FORMAT is "
            f"{cfg.INPUT.MASK_FORMAT!r} and MODEL.MASK_ON {cfg.MODEL.MASK_ON}; copy-paste needs "
            "'bitmask' and True"
        )
    return CopyPaste(keys.PROBABILITY, keys.MAX_OBJECTS)


def moves_out(cfg: CfgNode) -> bool:
    """Whether training pictures lose a part, so that boxes must be made from the masks again."""
    cfg = with_input_keys(cfg)
    return bool(cfg.INPUT.CROP.ENABLED or cfg.INPUT.LSJ.ENABLED)


def _color(keys: CfgNode) -> list[T.Augmentation]:
    jitter = keys.COLOR_JITTER
    strengths = {name: jitter[name.upper()] for name in ("brightness", "contrast", "saturation")}
    for name, value in strengths.items():
        if value < 0:
            raise UsageError(f"INPUT.COLOR_JITTER.{name.upper()} is {value}, expected 0 or more")
    if not 0 <= jitter.HUE <= 0.5:
        raise UsageError(f"INPUT.COLOR_JITTER.HUE is {jitter.HUE}, expected 0 to 0.5")
    if not any([*strengths.values(), jitter.HUE]):
        return []
    if keys.FORMAT not in ("BGR", "RGB"):
        raise UsageError(
            f"INPUT.FORMAT is {keys.FORMAT!r}; INPUT.COLOR_JITTER needs 'BGR' or 'RGB'"
        )
    return [ColorJitter(**strengths, hue=jitter.HUE, image_format=keys.FORMAT)]


def _large_scale_jitter(cfg: CfgNode) -> list[T.Augmentation]:
    keys = cfg.INPUT.LSJ
    if not 0 < keys.MIN_SCALE <= keys.MAX_SCALE:
        raise UsageError(
            f"INPUT.LSJ.MIN_SCALE is {keys.MIN_SCALE} and MAX_SCALE {keys.MAX_SCALE}, expected "
            "0 < MIN_SCALE <= MAX_SCALE"
        )
    if keys.SIZE < 1:
        raise UsageError(f"INPUT.LSJ.SIZE is {keys.SIZE}, expected at least 1 pixel")
    return [
        ResizeScale(keys.MIN_SCALE, keys.MAX_SCALE, keys.SIZE, keys.SIZE),
        CropOrPad((keys.SIZE, keys.SIZE), cfg.MODEL.PIXEL_MEAN),
    ]

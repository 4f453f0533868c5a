"""Config keys of mappers and augmentations; all augmentations beyond Detectron2's are off."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_input_keys(cfg: CfgNode) -> None:
    """Add them to a config that has Detectron2's own."""
    # Which mapper makes samples of records: a name in MAPPER_REGISTRY.
    cfg.INPUT.MAPPER = "CocoMapper"
    # Place the crop of INPUT.CROP so that the centre of a random object is inside.
    cfg.INPUT.CROP.INSTANCE_AWARE = False
    # Large-scale jitter instead of MIN_SIZE_TRAIN: the picture is made to fit a square of side SIZE
    # times a random factor, then cropped or padded (with PIXEL_MEAN) to that square.
    cfg.INPUT.LSJ = CfgNode()
    cfg.INPUT.LSJ.ENABLED = False
    cfg.INPUT.LSJ.MIN_SCALE = 0.1
    cfg.INPUT.LSJ.MAX_SCALE = 2.0
    cfg.INPUT.LSJ.SIZE = 1024  # pixels
    # Simple copy-paste: the share of samples (0 to 1) that get objects of another picture, and how
    # many at most (0: half of them on average). Needs MASK_FORMAT "bitmask".
    cfg.INPUT.COPY_PASTE = CfgNode()
    cfg.INPUT.COPY_PASTE.PROBABILITY = 0.0
    cfg.INPUT.COPY_PASTE.MAX_OBJECTS = 0
    # Strengths of colour changes, torchvision's ColorJitter: factors within 1 - s and 1 + s; HUE in
    # turns of the colour circle, 0 to 0.5. Before the resize; 0 is off.
    cfg.INPUT.COLOR_JITTER = CfgNode()
    cfg.INPUT.COLOR_JITTER.BRIGHTNESS = 0.0
    cfg.INPUT.COLOR_JITTER.CONTRAST = 0.0
    cfg.INPUT.COLOR_JITTER.SATURATION = 0.0
    cfg.INPUT.COLOR_JITTER.HUE = 0.0


def with_input_keys(cfg: CfgNode) -> CfgNode:
    """The config itself, or a copy with the defaults of these keys if it has none of them."""
    if "MAPPER" in cfg.INPUT:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    add_input_keys(cfg)
    return cfg

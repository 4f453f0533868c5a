"""All checks of the keys in `config_keys.py`; each stands beside what reads its keys."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..errors import UsageError
from ..modeling.speed import check_speed_keys
from .averaging import check_averaging_keys
from .best import check_best_keys
from .checkpoint import check_checkpoint_keys
from .early_stop import check_early_stop_keys
from .recipe import check_recipe_keys
from .step import check_step_keys
from .weights.classes import CHOICES
from .writers import check_writer_keys


def check_engine_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: the key, its value, what it may be
    """
    check_averaging_keys(cfg)
    check_best_keys(cfg)
    check_checkpoint_keys(cfg)
    check_early_stop_keys(cfg)
    check_recipe_keys(cfg)
    check_speed_keys(cfg)
    check_step_keys(cfg)
    check_writer_keys(cfg)
    padding = cfg.DATALOADER.PAD_TO_GLOBAL_BATCH
    if padding is not None and not isinstance(padding, bool):
        raise UsageError(
            f"DATALOADER.PAD_TO_GLOBAL_BATCH is {padding!r}, expected True, False or None"
        )
    if cfg.MODEL.CLASS_TRANSFER not in ("", *CHOICES):
        raise UsageError(
            f"MODEL.CLASS_TRANSFER is {cfg.MODEL.CLASS_TRANSFER!r}, expected '' or one of "
            f"{', '.join(CHOICES)}"
        )

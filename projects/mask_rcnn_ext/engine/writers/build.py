"""Writers from config keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter

from ...config import flatten
from ...errors import UsageError
from .mlflow_writer import MlflowWriter
from .progress import MetricPrinter
from .tensorboard import TensorBoardWriter
from .tracked_run import TrackerWriter
from .wandb_writer import WandbWriter

# LOG.WRITERS -> class, package that it needs
TRACKERS: dict[str, tuple[Callable[..., TrackerWriter], str]] = {
    "wandb": (WandbWriter, "wandb"),
    "mlflow": (MlflowWriter, "mlflow"),
}


def check_writer_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: LOG.PERIOD below 1, an unknown or repeated name in LOG.WRITERS, no LOG.PROJECT
    """
    if cfg.LOG.PERIOD < 1:
        raise UsageError(f"LOG.PERIOD is {cfg.LOG.PERIOD}, expected at least 1 step")
    wanted = cfg.LOG.WRITERS
    if isinstance(wanted, str) or len(set(wanted)) < len(wanted) or set(wanted) - set(TRACKERS):
        raise UsageError(
            f"LOG.WRITERS is {wanted!r}, expected a list of some of {', '.join(TRACKERS)}, each "
            "once: LOG.WRITERS \"['wandb']\""
        )
    if wanted and not cfg.LOG.PROJECT:
        raise UsageError(f"LOG.PROJECT is empty; {', '.join(wanted)} need the name of a project")


def build_writers(
    cfg: CfgNode,
    *,
    max_iter: int,
    images_per_step: int,
    counts: Callable[[], dict[str, int]] = dict,
) -> list[EventWriter]:
    """The line of the log, metrics.json, TensorBoard, and what LOG.WRITERS names.

    Args:
        cfg: reads OUTPUT_DIR and LOG; all of it goes to the trackers
        max_iter: steps of the whole run
        images_per_step: in all processes together
        counts: see `MetricPrinter`
    Returns:
        [] in all processes but the first. Those that can go on with an earlier run's figures have
        the attribute `_last_write`, the last iteration written, to be set before `open`
    Raises:
        UsageError: LOG.WRITERS names one whose package is not installed
    """
    if not comm.is_main_process():
        return []
    folder = Path(cfg.OUTPUT_DIR)
    writers: list[EventWriter] = [
        MetricPrinter(
            max_iter=max_iter,
            images_per_step=images_per_step,
            window_size=cfg.LOG.PERIOD,
            counts=counts,
        ),
        JSONWriter(str(folder / "metrics.json"), window_size=cfg.LOG.PERIOD),
        TensorBoardWriter(str(folder), window_size=cfg.LOG.PERIOD),
    ]
    return writers + [_tracker(cfg, name) for name in cfg.LOG.WRITERS]


def _tracker(cfg: CfgNode, name: str) -> TrackerWriter:
    build, package = TRACKERS[name]
    if find_spec(package) is None:
        raise UsageError(
            f"LOG.WRITERS names {name!r}, but the package {package} is not installed: "
            f"pip install 'mask_rcnn_ext[{name}]'"
        )
    return build(
        output_dir=cfg.OUTPUT_DIR,
        project=cfg.LOG.PROJECT,
        run_name=cfg.LOG.RUN_NAME or os.path.basename(os.path.abspath(cfg.OUTPUT_DIR)),
        config=_plain(cfg),
        window_size=cfg.LOG.PERIOD,
    )


def _plain(cfg: CfgNode) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flatten(cfg)}

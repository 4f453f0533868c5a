"""Everything that is settled before the model exists: config, device, folder, data, logging."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import find_config, load_config, names_key
from ..data.checks import check_datasets
from ..data.proposals import check_proposal_files
from ..data.records import table_of
from ..data.registration import locate_dataset, register_from
from ..data.subset import register_subset
from ..errors import UsageError, UserError
from .follow_data import follow_data


def setup(args: argparse.Namespace) -> tuple[CfgNode, dict[str, str]]:
    """
    Args:
        args: of `argument_parser()`
    Returns:
        the frozen config, and data set name -> fingerprint of its annotation file
    Raises:
        UserError: anything that would stop the run later, with what to do
    """
    # A config of the package has its name from any folder; Detectron2 opens the file once more.
    args.config_file = str(find_config(args.config_file))
    cfg = load_config(args.config_file, args.opts)
    check_device(cfg.MODEL.DEVICE, args.num_gpus)
    check_output_dir(cfg.OUTPUT_DIR, starts_anew=not (args.resume or args.eval_only))
    # Detectron2 sets its own loggers up later; what the data have to say comes before.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="mask_rcnn_ext")
    register_from(cfg.DATASETS.REGISTRY)
    cfg.defrost()
    follow_data(
        cfg,
        functools.partial(names_key, args.config_file, args.opts),
        training=not args.eval_only,
    )
    cfg.freeze()
    fingerprints = check_data(cfg, training=not args.eval_only)

    cfg.defrost()
    if cfg.SEED < 0:
        # Drawn here, so that config.yaml of any run is enough to repeat it.
        cfg.SEED = comm.shared_random_seed() % 2**31
    if cfg.DATASETS.MAX_IMAGES:
        folder = Path(cfg.OUTPUT_DIR) / "datasets"
        for key in ("TRAIN", "TEST"):
            cfg.DATASETS[key] = tuple(
                register_subset(name, cfg.DATASETS.MAX_IMAGES, folder) for name in cfg.DATASETS[key]
            )
    cfg.freeze()
    check_proposals(cfg, training=not args.eval_only)
    default_setup(cfg, args)
    _hide_tracebacks_of_user_errors()
    # Detectron2's mapper copies the masks that pycocotools decodes; that these are read-only is
    # nothing to warn of.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return cfg, fingerprints


def check_device(device: str, num_gpus: int) -> None:
    """Refuse a GPU that is not there before anything is loaded."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"MODEL.DEVICE is {device}, but PyTorch {torch.__version__} sees no GPU here. "
            "To run on the CPU add: MODEL.DEVICE cpu"
        )
    if device.startswith("cuda") and num_gpus > torch.cuda.device_count():
        raise UsageError(
            f"--num-gpus {num_gpus}, but PyTorch sees {torch.cuda.device_count()} GPUs"
        )


def check_output_dir(output_dir: str, *, starts_anew: bool) -> None:
    """Make sure that the folder can be written and that no other run's checkpoint is in it."""
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to OUTPUT_DIR {folder}: {error.strerror}") from error
    checkpoints = sorted(folder.glob("model_*.pth"))
    if starts_anew and checkpoints:
        raise UsageError(
            f"OUTPUT_DIR {folder} holds a checkpoint of another run ({checkpoints[-1].name}). "
            "Add --resume to go on with that run, or choose another folder: OUTPUT_DIR my/folder"
        )


def check_data(cfg: CfgNode, *, training: bool) -> dict[str, str]:
    """Check the sets that this run reads; see `data.checks.check_datasets`."""
    names: dict[str, Sequence[str]] = {"TRAIN": cfg.DATASETS.TRAIN, "TEST": cfg.DATASETS.TEST}
    if training and not cfg.DATASETS.TRAIN:
        raise UsageError("DATASETS.TRAIN is empty; name at least one data set")
    if not training and not cfg.DATASETS.TEST:
        raise UsageError("--eval-only, but DATASETS.TEST is empty; name at least one data set")
    fingerprints: dict[str, str] = {}
    splits = ("TRAIN", "TEST") if training else ("TEST",)
    if not cfg.DATASETS.CHECK:
        logging.getLogger("mask_rcnn_ext").warning(
            "DATASETS.CHECK is False: annotation files are taken as they are"
        )
        located = {name: locate_dataset(name) for split in splits for name in names[split]}
        return {n: table_of(place[0]).sha256[:16] for n, place in located.items() if place}
    for split in splits:
        fingerprints |= check_datasets(
            names[split],
            cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            needs_annotations=split == "TRAIN",
            wants_masks=cfg.MODEL.MASK_ON,
            wants_keypoints=cfg.MODEL.KEYPOINT_ON,
        )
    return fingerprints


def check_proposals(cfg: CfgNode, *, training: bool) -> None:
    """Check the files of precomputed proposals that this run reads, if it reads any."""
    if not cfg.MODEL.LOAD_PROPOSALS:
        return
    for split in ("TRAIN", "TEST") if training else ("TEST",):
        check_proposal_files(
            cfg.DATASETS[split],
            cfg.DATASETS[f"PROPOSAL_FILES_{split}"],
            split=split,
            topk=cfg.DATASETS[f"PRECOMPUTED_PROPOSAL_TOPK_{split}"],
        )


def _hide_tracebacks_of_user_errors() -> None:
    """Detectron2's loop logs a traceback for whatever ends it; these end in a message of ours."""
    loop = logging.getLogger("detectron2.engine.train_loop")
    if not any(f is _is_for_developers for f in loop.filters):
        loop.addFilter(_is_for_developers)


def _is_for_developers(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], UserError | FloatingPointError))

"""Everything that is settled before the model exists: config, device, folder, data, logging."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import find_config, load_config, names_key
from ..data import dubious
from ..data.checks import check_datasets
from ..data.proposals import check_proposal_files
from ..data.records import table_of
from ..data.registration import locate_dataset, register_from
from ..data.subset import register_subset
from ..errors import UsageError, UserError
from . import recipe_lints
from .deterministic import make_deterministic, remaining_sources
from .follow_data import follow_data
from .recipe import check_shares, derive_recipe
from .resume import Earlier, goes_on, look_at


@dataclass(frozen=True)
class Prepared:
    """
    Attributes:
        cfg: frozen
        fingerprints: data set name -> of its annotation file
        earlier: the run that was in OUTPUT_DIR before, if one was
        resume: whether that run goes on
    """

    cfg: CfgNode
    fingerprints: dict[str, str]
    earlier: Earlier | None
    resume: bool


def setup(args: argparse.Namespace) -> Prepared:
    """
    Args:
        args: of `argument_parser()`
    Raises:
        UserError: anything that would stop the run later, with what to do
    """
    # A config of the package has its name from any folder; Detectron2 opens the file once more.
    args.config_file = str(find_config(args.config_file))
    cfg = load_config(args.config_file, args.opts).clone()
    check_device(cfg.MODEL.DEVICE, args.num_gpus)
    check_output_dir(cfg.OUTPUT_DIR)
    if args.deterministic:
        make_deterministic(cfg.MODEL.DEVICE)
    # Detectron2 sets its own loggers up later; what the data have to say comes before.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="mask_rcnn_ext")
    dubious.log_to(Path(cfg.OUTPUT_DIR) / "skipped.jsonl")
    register_from(cfg.DATASETS.REGISTRY)
    cfg.defrost()
    if not args.eval_only:
        _follow_batch(cfg, args)
    follow_data(
        cfg,
        functools.partial(names_key, args.config_file, args.opts),
        training=not args.eval_only,
    )
    cfg.freeze()
    fingerprints = check_data(cfg, training=not args.eval_only)

    cfg.defrost()
    if cfg.DATASETS.MAX_IMAGES:
        folder = Path(cfg.OUTPUT_DIR) / "datasets"
        for key in ("TRAIN", "TEST"):
            cfg.DATASETS[key] = tuple(
                register_subset(name, cfg.DATASETS.MAX_IMAGES, folder) for name in cfg.DATASETS[key]
            )
    earlier, resume = None, False
    if not args.eval_only:
        # Before config.yaml is written, against the config as it will be written there. The main
        # process looks, so that all see the same.
        looked = look_at(cfg.OUTPUT_DIR, cfg) if comm.is_main_process() else None
        earlier = comm.all_gather(looked)[0]
        resume = goes_on(earlier, cfg.OUTPUT_DIR, asked=args.resume)
    if cfg.SEED < 0:
        # Drawn here, so that config.yaml of any run is enough to repeat it.
        drawn = comm.shared_random_seed() % 2**31
        cfg.SEED = drawn if earlier is None or earlier.seed is None else earlier.seed
    cfg.freeze()
    check_proposals(cfg, training=not args.eval_only)
    # Before the config is written: a lint reads the one beside the weights, which may be this one.
    recipe_lints.report(cfg, training=not args.eval_only)
    args.resume = resume
    default_setup(cfg, args)
    if args.deterministic:
        _say_what_may_differ(cfg)
    # Detectron2's mapper copies the masks that pycocotools decodes; that these are read-only is
    # nothing to warn of.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return Prepared(cfg, fingerprints, earlier, resume)


def _follow_batch(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Learning rate and schedule for the images a step that there are."""
    named = set(args.opts[0::2])
    derivation = derive_recipe(cfg, named, args.config_file)
    derivation.apply(cfg)
    check_shares(cfg, comm.get_world_size(), named)
    if str(derivation) and comm.is_main_process():
        logging.getLogger(__name__).info("%s", derivation)


def _say_what_may_differ(cfg: CfgNode) -> None:
    logger = logging.getLogger(__name__)
    sources = remaining_sources(cfg, comm.get_world_size())
    if not sources:
        logger.info("--deterministic: two runs with the same seed give the same bits")
    for one in sources:
        logger.warning("--deterministic: %s can differ: %s %s", *one)


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


def check_output_dir(output_dir: str) -> None:
    """Make sure that the folder can be written to."""
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to OUTPUT_DIR {folder}: {error.strerror}") from error


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

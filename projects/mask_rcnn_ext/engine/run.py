"""One run: what `train_net.py` and every other starter of trainings call."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..errors import Interrupted, UserError
from ..visualization.samples import draw_samples
from .checkpoint import Checkpointer
from .interrupt import StopOnCtrlC
from .record import RunRecord, write_results
from .setup import setup
from .trainer import Trainer


def run(args: argparse.Namespace) -> int:
    """Set up, train or evaluate, and leave run.json, results.json and pictures.

    Args:
        args: of `engine.arguments.argument_parser()`
    Returns:
        0
    Raises:
        UserError: see the message; the run's record says "failed" or "stopped"
    """
    cfg, fingerprints = setup(args)
    record = RunRecord(cfg, args, fingerprints) if comm.is_main_process() else None
    state = "failed"
    try:
        results = _evaluate(cfg) if args.eval_only else _train(cfg, args.resume)
        if comm.is_main_process():
            _report(cfg, results)
            _refuse_failed_images(cfg, results)
        state = "finished"
    except (Interrupted, KeyboardInterrupt):
        state = "stopped"
        raise
    finally:
        if record is not None:
            record.finish(state)
    return 0


def _refuse_failed_images(cfg: CfgNode, results: dict[str, Any]) -> None:
    failed = getattr(results, "failed", [])
    if failed and not cfg.TEST.ALLOW_FAILED_IMAGES:
        raise UserError(
            f"{len(failed)} test images could not be used; the figures are those of all others. "
            f"The first: {failed[0]} To let that pass: TEST.ALLOW_FAILED_IMAGES True"
        )


def _train(cfg: CfgNode, resume: bool) -> dict[str, Any]:
    # Before the trainer: its data-loader workers inherit the handler.
    stop = StopOnCtrlC().install()
    try:
        trainer = Trainer(cfg, stop)
        trainer.resume_or_load(resume=resume)
        return trainer.train()
    except FloatingPointError as error:
        raise UserError(_divergence_advice(cfg, error)) from error
    finally:
        stop.uninstall()


def _divergence_advice(cfg: CfgNode, error: FloatingPointError) -> str:
    message = f"the loss is no longer finite: {error}\n"
    if not cfg.MODEL.WEIGHTS and cfg.MODEL.RESNETS.NORM == "FrozenBN":
        message += (
            "The model starts from random weights with a frozen batch norm, which normalizes "
            "nothing then: add MODEL.RESNETS.NORM BN MODEL.BACKBONE.FREEZE_AT 0. Otherwise "
        )
    return message + (
        f"SOLVER.BASE_LR ({cfg.SOLVER.BASE_LR}) may be too high for SOLVER.IMS_PER_BATCH "
        f"({cfg.SOLVER.IMS_PER_BATCH}): the paper's 0.02 goes with 16 images; scale it with the "
        "batch."
    )


def _evaluate(cfg: CfgNode) -> dict[str, Any]:
    if not cfg.MODEL.WEIGHTS:
        raise UserError("--eval-only needs trained weights: MODEL.WEIGHTS path/to/model_final.pth")
    model = Trainer.build_model(cfg)
    Checkpointer(model, save_dir=cfg.OUTPUT_DIR).load(cfg.MODEL.WEIGHTS)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _report(cfg: CfgNode, results: dict[str, Any]) -> None:
    if not results:
        return
    logger = logging.getLogger("mask_rcnn_ext")
    flat = write_results(cfg.OUTPUT_DIR, results)
    logger.info("Wrote %s/results.json (%d figures)", cfg.OUTPUT_DIR, len(flat))
    # An RPN on its own detects nothing that could be drawn.
    if cfg.TEST.SAMPLE_PICTURES and cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork":
        picture = draw_samples(
            cfg.DATASETS.TEST[0],
            f"{cfg.OUTPUT_DIR}/inference/{cfg.DATASETS.TEST[0]}/coco_instances_results.json",
            f"{cfg.OUTPUT_DIR}/samples.png",
            count=cfg.TEST.SAMPLE_PICTURES,
            score_threshold=cfg.TEST.SAMPLE_SCORE_THRESH,
        )
        logger.info("Wrote %s", picture)

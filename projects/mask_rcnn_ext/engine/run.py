"""One run: what `train_net.py` and every other starter of trainings call."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..data.registration import class_names_of
from ..errors import Interrupted, UserError
from ..visualization.samples import draw_samples
from .checkpoint import Checkpointer
from .interrupt import StopRequest
from .provenance import provenance
from .record import RunRecord, write_results
from .resume import is_finished
from .run_state import begin_figures
from .setup import Prepared, setup
from .trainer import Trainer
from .writers import forget_runs


def run(args: argparse.Namespace) -> int:
    """Set up, train or evaluate, and leave run.json, results.json and pictures.

    Args:
        args: of `engine.arguments.argument_parser()`
    Returns:
        0
    Raises:
        UserError: see the message; the run's record says "failed" or "stopped"
    """
    # Before all else: a signal while data are read ends the run with the same words as later.
    stop = StopRequest().install()
    try:
        prepared = setup(args)
        if is_finished(prepared.earlier):
            _say_finished(prepared.cfg)
            return 0
        return _run(args, prepared, stop)
    finally:
        stop.uninstall()


def _run(args: argparse.Namespace, prepared: Prepared, stop: StopRequest) -> int:
    cfg = prepared.cfg
    record = None
    if comm.is_main_process():
        goes_on = 0 if prepared.resume else None  # from where is known when it is loaded
        record = RunRecord(cfg, args, prepared.fingerprints, resumed_from=goes_on)
    state, reason = "failed", ""
    try:
        results = _evaluate(cfg) if args.eval_only else _train(prepared, stop, record)
        if comm.is_main_process():
            _report(cfg, results)
            _refuse_failed_images(cfg, results)
        state = "finished"
    except (Interrupted, KeyboardInterrupt) as error:
        state, reason = "stopped", str(error) or "Ctrl-C"
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        if record is not None:
            record.finish(state, reason.partition("\n")[0])
    return 0


def _refuse_failed_images(cfg: CfgNode, results: dict[str, Any]) -> None:
    failed = getattr(results, "failed", [])
    if failed and not cfg.TEST.ALLOW_FAILED_IMAGES:
        raise UserError(
            f"{len(failed)} test images could not be used; the figures are those of all others. "
            f"The first: {failed[0]} To let that pass: TEST.ALLOW_FAILED_IMAGES True"
        )


def _say_finished(cfg: CfgNode) -> None:
    if comm.is_main_process():
        logging.getLogger("mask_rcnn_ext").info(
            "The run in %s is finished: model_final.pth and results.json are there. Nothing is "
            "left to do; to train anew, choose another folder: OUTPUT_DIR my/folder",
            cfg.OUTPUT_DIR,
        )


def _train(prepared: Prepared, stop: StopRequest, record: RunRecord | None) -> dict[str, Any]:
    cfg = prepared.cfg
    if not prepared.resume and comm.is_main_process():
        same = prepared.earlier is not None and not prepared.earlier.matter
        begin_figures(Path(cfg.OUTPUT_DIR) / "metrics.json", same_run=same)
        if not same:
            forget_runs(cfg.OUTPUT_DIR)
    trainer = Trainer(cfg, stop, provenance(cfg, prepared.fingerprints))
    trainer.resume_or_load(resume=prepared.resume)
    if record is not None:
        record.resume(trainer.start_iter)
        trainer.after_save = record.reach
    return trainer.train()


def _evaluate(cfg: CfgNode) -> dict[str, Any]:
    if not cfg.MODEL.WEIGHTS:
        raise UserError("--eval-only needs trained weights: MODEL.WEIGHTS path/to/model_final.pth")
    model = Trainer.build_model(cfg)
    names = class_names_of(cfg.DATASETS.TEST[0])
    how = cfg.MODEL.CLASS_TRANSFER
    Checkpointer(model, cfg.OUTPUT_DIR, class_names=names, class_transfer=how).load(
        cfg.MODEL.WEIGHTS
    )
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

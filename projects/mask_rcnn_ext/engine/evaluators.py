"""Which evaluator a data set gets: a table keyed on its metadata."""

from __future__ import annotations

import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..data.registration import records_of
from ..errors import UsageError
from ..evaluation.cityscapes import CityscapesEvaluator
from ..evaluation.coco import CocoEvaluator


def _coco_evaluator(cfg: CfgNode, dataset_name: str, suffix: str = "") -> DatasetEvaluator:
    tasks = ["bbox"]
    tasks += ["segm"] if cfg.MODEL.MASK_ON else []
    tasks += ["boundary"] if cfg.TEST.BOUNDARY_AP else []
    tasks += ["keypoints"] if cfg.MODEL.KEYPOINT_ON else []
    return CocoEvaluator(
        dataset_name,
        output_dir=_inference_folder(cfg, dataset_name + suffix),
        max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        tasks=tuple(tasks),
        kpt_oks_sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
        backend=cfg.TEST.COCO_BACKEND,
    )


def _cityscapes_evaluator(cfg: CfgNode, dataset_name: str, suffix: str = "") -> DatasetEvaluator:
    """The benchmark's figures, and COCO's beside them."""
    coco = _coco_evaluator(cfg, dataset_name, suffix)
    if not cfg.MODEL.MASK_ON:
        return coco
    submission = None
    if cfg.TEST.CITYSCAPES_SUBMISSION:
        submission = _inference_folder(cfg, dataset_name + suffix) + "/submission"
    records = records_of(dataset_name)
    has_truth = any(record["annotations"] for record in records)
    if not has_truth and submission is None:
        return coco
    cityscapes = CityscapesEvaluator(
        dataset_name,
        image_files=[record["file_name"] for record in records],
        submission_dir=submission,
        figures=has_truth,
    )
    return DatasetEvaluators([coco, cityscapes])


def _inference_folder(cfg: CfgNode, name: str) -> str:
    return os.path.join(cfg.OUTPUT_DIR, "inference", name)


# MetadataCatalog's evaluator_type -> evaluator; a new kind of data set adds a line.
EVALUATORS: dict[str, Callable[[CfgNode, str, str], DatasetEvaluator]] = {
    "coco": _coco_evaluator,
    "cityscapes_instance": _cityscapes_evaluator,
}


def build_evaluator(cfg: CfgNode, dataset_name: str, suffix: str = "") -> DatasetEvaluator:
    """
    Args:
        dataset_name: registered; its metadata has the evaluator's type
        suffix: of the folder with the detections
    Raises:
        UsageError: a type that nobody evaluates
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        raise UsageError(
            f"data set {dataset_name!r} has the evaluator type {kind!r}; "
            f"there are evaluators for: {', '.join(EVALUATORS)}"
        )
    return EVALUATORS[kind](cfg, dataset_name, suffix)

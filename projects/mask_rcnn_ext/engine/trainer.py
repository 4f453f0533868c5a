"""Detectron2's DefaultTrainer with this project's mapper, checkpointer and evaluators."""

from __future__ import annotations

import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, print_csv_format
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from ..data.loader import TrainLoader, build_train_loader, resume_at
from ..data.mappers import build_mapper
from ..data.mappers.forgiving import ForgivingMapper
from ..data.registration import class_names_of, records_of
from ..data.run_records import select_records
from ..errors import UsageError
from ..evaluation.cityscapes import CityscapesEvaluator
from ..evaluation.coco import CocoEvaluator
from ..evaluation.inference import run_inference
from ..modeling.test_time_augmentation import RCNNWithTTA
from .checkpoint import Checkpointer
from .interrupt import StopOnCtrlC


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


class Results(OrderedDict[str, Any]):
    """Figures of an evaluation, as Detectron2's, and which images had no part in them.

    failed: a message an image that could not be used
    """

    failed: list[str]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.failed = []


class Trainer(DefaultTrainer):
    """What `train_net.py` runs."""

    def __init__(self, cfg: CfgNode, stop: StopOnCtrlC | None = None):
        self._stop = stop
        self._data_seed: int | None = None  # of the run that is resumed
        super().__init__(cfg)

    def build_hooks(self) -> list[Any]:
        # The parent has just built its own checkpointer; its hooks take ours from here.
        self.checkpointer: Checkpointer = Checkpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            trainer=weakref.proxy(self),
            class_names=class_names_of(self.cfg.DATASETS.TRAIN[0]),
        )
        hooks = super().build_hooks()
        # After the writers: a stopped run has its last metrics on disk.
        return hooks + ([self._stop] if self._stop is not None else [])

    # v0.6's DefaultTrainer leaves the optimizer out of its checkpoints, so that a resumed run
    # starts with zero momentum; main keeps it under this key. With these two, both do.
    def state_dict(self) -> dict[str, Any]:
        return TrainerBase.state_dict(self) | {
            "_trainer": self._trainer.state_dict(),
            "data_seed": self._trainer.data_loader.dataset.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])
        else:
            logging.getLogger(__name__).warning(
                "This checkpoint holds no optimizer state (Detectron2 v0.6 wrote it): "
                "momentum starts from zero"
            )
        self._data_seed = state_dict.get("data_seed")

    def resume_or_load(self, resume: bool = True) -> Any:
        """As Detectron2's; a resumed run goes on with the images that would have come next."""
        loaded = super().resume_or_load(resume)
        resume_at(self._trainer.data_loader, self.start_iter, self._data_seed)
        return loaded

    def train(self) -> dict[str, Any]:
        """Train, evaluate; the results of the last evaluation as test() returns them, or {}."""
        super().train()
        return getattr(self, "_last_eval_results", None) or {}

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return super().build_optimizer(cfg, model)
        params = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        adamw = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return adamw(params, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        records = select_records(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=keypoints if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
        return build_train_loader(cfg, records, build_mapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        place = list(cfg.DATASETS.TEST).index(dataset_name)
        files = cfg.DATASETS.PROPOSAL_FILES_TEST if cfg.MODEL.LOAD_PROPOSALS else None
        return build_detection_test_loader(
            select_records([dataset_name], proposal_files=[files[place]] if files else None),
            mapper=ForgivingMapper(build_mapper(cfg, is_train=False)),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def test(
        cls, cfg: CfgNode, model: torch.nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> Results:
        """Evaluate on each set of DATASETS.TEST; with one set, its figures alone.

        As Detectron2's, but masks are never pasted, and an image that does not decode is left out
        and named in the results. With TEST.AUG.ENABLED each set is evaluated a second time with
        test-time augmentation; those figures have names that end in _TTA.
        """
        found: dict[str, dict[str, Any]] = {}
        failed: list[str] = []
        for place, name in enumerate(cfg.DATASETS.TEST):
            evaluator = evaluators[place] if evaluators else cls.build_evaluator(cfg, name)
            found[name] = cls._test_one(cfg, model, name, evaluator, failed)
            if cfg.TEST.AUG.ENABLED and not evaluators:
                plain = model.module if isinstance(model, DistributedDataParallel) else model
                augmented = cls._test_one(
                    _without_resize(cfg),
                    RCNNWithTTA(cfg, plain),
                    name,
                    cls.build_evaluator(cfg, name, "_TTA"),
                    [],
                )
                found[name] |= {f"{task}_TTA": figures for task, figures in augmented.items()}
        results = Results(next(iter(found.values())) if len(found) == 1 else found)
        results.failed = failed
        return results

    @classmethod
    def _test_one(
        cls,
        cfg: CfgNode,
        model: torch.nn.Module,
        name: str,
        evaluator: DatasetEvaluator,
        failed: list[str],
    ) -> dict[str, Any]:
        done = run_inference(
            model,
            cls.build_test_loader(cfg, name),
            evaluator,
            encoding_processes=_encoding_processes(cfg),
        )
        failed += done.failed
        logger = logging.getLogger(__name__)
        for message in done.failed:
            logger.error("Left out of the evaluation on %s: %s", name, message)
        if comm.is_main_process():
            logger.info("Evaluation results for %s in csv format:", name)
            print_csv_format(done.results)
        return done.results

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, suffix: str = "") -> DatasetEvaluator:
        """
        Args:
            suffix: of the folder with the detections
        """
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if kind not in EVALUATORS:
            raise UsageError(
                f"data set {dataset_name!r} has the evaluator type {kind!r}; "
                f"there are evaluators for: {', '.join(EVALUATORS)}"
            )
        return EVALUATORS[kind](cfg, dataset_name, suffix)


def _encoding_processes(cfg: CfgNode) -> int:
    """TEST.ENCODING_PROCESSES; -1 is none on a CPU, whose cores the model needs, else two."""
    given: int = cfg.TEST.ENCODING_PROCESSES
    if given >= 0:
        return given
    return 0 if torch.device(cfg.MODEL.DEVICE).type == "cpu" else 2


def _without_resize(cfg: CfgNode) -> CfgNode:
    """Test-time augmentation resizes the image itself, from its own size."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = 0
    return cfg

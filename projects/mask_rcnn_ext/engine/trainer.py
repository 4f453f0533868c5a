"""Detectron2's DefaultTrainer with this project's mapper, checkpointer and evaluators."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

from ..data.loader import TrainLoader, build_train_loader, resume_at
from ..data.mappers import build_mapper
from ..data.run_records import select_records
from ..errors import UsageError
from ..evaluation.coco import CocoEvaluator
from .checkpoint import Checkpointer
from .interrupt import StopOnCtrlC


def _coco_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    tasks = ["bbox"]
    tasks += ["segm"] if cfg.MODEL.MASK_ON else []
    tasks += ["keypoints"] if cfg.MODEL.KEYPOINT_ON else []
    return CocoEvaluator(
        dataset_name,
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name),
        max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        tasks=tuple(tasks),
        kpt_oks_sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
    )


# MetadataCatalog's evaluator_type -> evaluator; a new kind of data set adds a line.
EVALUATORS: dict[str, Callable[[CfgNode, str], DatasetEvaluator]] = {"coco": _coco_evaluator}


class Trainer(DefaultTrainer):
    """What `train_net.py` runs."""

    def __init__(self, cfg: CfgNode, stop: StopOnCtrlC | None = None):
        self._stop = stop
        self._data_seed: int | None = None  # of the run that is resumed
        super().__init__(cfg)

    def build_hooks(self) -> list[Any]:
        # The parent has just built its own checkpointer; its hooks take ours from here.
        self.checkpointer: Checkpointer = Checkpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
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
            mapper=build_mapper(cfg, is_train=False),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if kind not in EVALUATORS:
            raise UsageError(
                f"data set {dataset_name!r} has the evaluator type {kind!r}; "
                f"there are evaluators for: {', '.join(EVALUATORS)}"
            )
        return EVALUATORS[kind](cfg, dataset_name)

"""Detectron2's DefaultTrainer, put together so that an interrupted run ends as an undisturbed one.

A step has a place where its state is complete and may be saved: after the optimizer, the schedule
and the averages, before evaluation and logs. A checkpoint holds that state. A run that goes on from
it first does what the step had left to do, then the steps that follow.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import get_bn_modules

from ..data.dubious import LeftOut
from ..data.loader import TrainLoader, build_train_loader, resume_at
from ..data.mappers import build_mapper
from ..data.mappers.forgiving import ForgivingMapper
from ..data.registration import class_names_of
from ..data.run_records import select_records
from ..evaluation.inference import run_inference
from ..modeling.padding import pad_like_the_global_batch
from ..modeling.speed import to_channels_last, wants_channels_last
from ..modeling.test_time_augmentation import RCNNWithTTA
from .averaging import Averaging
from .best import KeepBest, Metric
from .black_box import BlackBox
from .checkpoint import Checkpointer
from .early_stop import EarlyStop
from .evaluators import build_evaluator
from .interrupt import Interruptible, StopRequest, outlive_termination
from .optimizer import build_optimizer
from .precision import inference_context, ready_for_inference
from .resume import sentence
from .run_hooks import Checkpoints, Evaluation, PreciseBN
from .run_state import (
    cut_figures,
    figures_written,
    gathered_rng,
    go_on_writing,
    restore_rng,
    restore_storage,
    storage_state,
)
from .step import build_step
from .validation_loss import ValidationLoss
from .writers import Writers, build_writers, has_line


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

    def __init__(
        self,
        cfg: CfgNode,
        stop: StopRequest | None = None,
        provenance: dict[str, Any] | None = None,
    ):
        """
        Args:
            cfg: frozen, of `engine.setup.setup`
            stop: installed already, if signals shall end the run between two steps
            provenance: plain values that say how a checkpoint was made, for each of them
        """
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self._stop = stop or StopRequest()
        self._provenance = provenance or {}
        self.after_save: Callable[[int], None] = lambda done: None
        self._resumed: dict[str, Any] | None = None  # of the checkpoint that the run goes on from
        self._data_seed: int | None = None  # of the run that is resumed
        self._rng_states: list[dict[str, Any]] = []  # of all processes, for the checkpoint
        self.storage = EventStorage()
        self._ended: str | None = None  # why, if before its last iteration
        model = self.build_model(cfg)
        if _pads_to_global_batch(cfg):
            pad_like_the_global_batch(model)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        loader.worker_init_fn = outlive_termination  # until `train` ends them
        self._trainer = build_step(
            cfg, create_ddp_model(model, broadcast_buffers=False), loader, optimizer
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = self.build_checkpointer(cfg)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self._writers: list[Any] = []
        self._left_out = LeftOut(Path(cfg.OUTPUT_DIR) / "skipped.jsonl")
        self._averaging: Averaging | None = None
        self._validation: ValidationLoss | None = None
        self.register_hooks(self.build_hooks())

    def build_checkpointer(self, cfg: CfgNode) -> Checkpointer:
        return Checkpointer(
            self._trainer.model,
            cfg.OUTPUT_DIR,
            trainer=weakref.proxy(self),
            class_names=class_names_of(cfg.DATASETS.TRAIN[0]),
            class_transfer=cfg.MODEL.CLASS_TRANSFER,
            keep_last=cfg.SOLVER.CHECKPOINTS_KEPT,
        )

    def build_hooks(self) -> list[Any]:
        """Those of Detectron2's DefaultTrainer, in the order that this module's head describes."""
        cfg = self.cfg
        before: list[Any] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            alone = cfg.clone()
            alone.defrost()
            alone.DATALOADER.NUM_WORKERS = 0  # beside the workers of the training itself
            loader = self.build_train_loader(alone)
            period, count = cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER
            before.append(PreciseBN(period, self.model, loader, count))
        if cfg.MODEL.EMA.ENABLED:
            self._averaging = Averaging(self.model, decay=cfg.MODEL.EMA.DECAY)
            before.append(self._averaging)
        self._evaluation = Evaluation(cfg.TEST.EVAL_PERIOD, self._evaluate)
        after: list[Any] = [self._evaluation, *self._judges()]
        after.append(Writers(self.build_writers(), cfg.LOG.PERIOD))
        saving = Checkpoints(cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD, self._stop)
        return [*before, saving, *after]

    def build_black_box(self) -> BlackBox:
        return BlackBox(
            self.cfg.OUTPUT_DIR,
            self.model,
            config=self.cfg.dump(),
            seed=getattr(self.data_loader.dataset, "seed", None),
            optimizer=self.optimizer,
            class_names=class_names_of(self.cfg.DATASETS.TRAIN[0]) or (),
        )

    def run_step(self) -> None:
        super().run_step()
        if has_line(self.iter + 1, self.cfg.LOG.PERIOD, self.max_iter):
            self._trainer.flush()

    def _judges(self) -> list[Any]:
        """Hooks that look at an evaluation."""
        solver = self.cfg.SOLVER
        metric = Metric(self.cfg.TEST.BEST_METRIC, self.cfg.TEST.BEST_MODE)
        found: list[Any] = []
        if metric.name:
            found.append(KeepBest(metric, evaluated_at=self._evaluated_at))
        if solver.EARLY_STOP_PATIENCE:
            found.append(
                EarlyStop(
                    metric,
                    patience=solver.EARLY_STOP_PATIENCE,
                    min_delta=solver.EARLY_STOP_MIN_DELTA,
                    evaluated_at=self._evaluated_at,
                )
            )
        return found

    def build_writers(self) -> list[Any]:
        """Where figures go; [] in all processes but the main one."""
        self._writers = build_writers(
            self.cfg,
            max_iter=self.max_iter,
            images_per_step=self.cfg.SOLVER.IMS_PER_BATCH,
            counts=self._left_out.total,
        )
        return self._writers

    def _evaluated_at(self) -> int | None:
        return self._evaluation.evaluated_at

    def _evaluate(self) -> Results:
        """With the averaged weights, if there are some; on all test sets, losses included."""
        _share_buffers(self.model)
        with self.averaged():
            results = self.test(self.cfg, self.model, stop=self._stop)
            if self.cfg.TEST.VALIDATION_LOSS:
                self._validation = self._validation or ValidationLoss(self.cfg)
                results.update(self._validation(self.model))
        self._last_eval_results = results
        return results

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Within, the model has the weights that are evaluated: averaged ones, if asked for."""
        if self._averaging is None:
            return contextlib.nullcontext()
        return self._averaging.apply_to(self.model)

    # ---- the run

    def train(self) -> dict[str, Any]:
        """Train, evaluate; the results of the last evaluation as test() returns them, or {}."""
        logging.getLogger(__name__).info("Starting training from iteration %d", self.start_iter)
        self.iter = self.start_iter
        self._trainer.black_box = self.build_black_box()
        with EventStorage(self.start_iter) as self.storage, self._stop.deferred():
            try:
                if self._resumed:
                    restore_storage(self.storage, self._resumed["storage"])
                self.before_train()
                if self._resumed:
                    self._finish_step()
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
                self._trainer.flush()
                self._evaluate_at_the_end()
            finally:
                self._trainer._data_loader_iter.close()
                self.after_train()
                self._left_out.report()
        return getattr(self, "_last_eval_results", None) or {}

    def end_training(self, reason: str) -> None:
        """Let the step in hand be the last one; a final checkpoint and evaluation follow."""
        if self.iter + 1 < self.max_iter:
            logging.getLogger(__name__).info("Ending after iteration %d: %s", self.iter + 1, reason)
            self._ended = reason
            self.max_iter = self.iter + 1
            self.save("model_final")

    def _finish_step(self) -> None:
        """What the step before the checkpoint had left to do: all hooks behind `Checkpoints`."""
        self.iter = self.storage.iter = self.start_iter - 1
        place = next(i for i, hook in enumerate(self._hooks) if isinstance(hook, Checkpoints))
        for hook in self._hooks[place + 1 :]:
            hook.after_step()
        self.iter = self.start_iter

    def _evaluate_at_the_end(self) -> None:
        self.storage.iter = self.iter
        self._evaluation.run()

    # ---- its state

    def save(self, name: str | None = None) -> None:
        """Write a checkpoint of the step in hand; all processes must call it.

        Args:
            name: without suffix; None is a periodic one, named after the iteration
        """
        self._trainer.flush()
        self._rng_states = gathered_rng()
        if name is None:
            self.checkpointer.save_iteration(self.iter, provenance=self._provenance)
        else:
            self.checkpointer.save(name, iteration=self.iter, provenance=self._provenance)
        self.after_save(self.iter + 1)
        if name == "model_final" and self._averaging is not None:
            self.checkpointer.save_averaged(self._averaging.averaged_state_dict(), self.iter)

    # v0.6's DefaultTrainer leaves the optimizer out of its checkpoints; main keeps it under this
    # key. The others are ours.
    def state_dict(self) -> dict[str, Any]:
        return TrainerBase.state_dict(self) | {
            "_trainer": self._trainer.state_dict(),
            "data_seed": self._trainer.data_loader.dataset.seed,
            "run": {
                "rng": self._rng_states,
                "storage": storage_state(self.storage),
                "figures": figures_written(self._metrics_file, self._writers),
                "ended": self._ended,
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state_dict)
        logger = logging.getLogger(__name__)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])
        else:
            logger.warning(
                "This checkpoint holds no optimizer state (Detectron2 v0.6 wrote it): "
                "momentum starts from zero"
            )
        self._resumed = state_dict.get("run")
        self._data_seed = state_dict.get("data_seed")
        if self._resumed is None:
            logger.warning(
                "This checkpoint holds no random numbers and no figures (Detectron2 wrote it): "
                "the run goes on, but not as if it had never stopped"
            )

    def resume_or_load(self, resume: bool = True) -> Any:
        """As Detectron2's; a resumed run goes on as if it had not been interrupted."""
        loaded = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        source = self.cfg.MODEL.WEIGHTS
        if self.checkpointer.resumed_from is not None:
            self.start_iter = self.iter + 1
            source = self.checkpointer.resumed_from.path.name
            self._go_on()
        logging.getLogger(__name__).info(sentence(self.start_iter, self.max_iter, source))
        return loaded

    def _go_on(self) -> None:
        resume_at(self._trainer.data_loader, self.start_iter, self._data_seed)
        if self._resumed:
            restore_rng(self._resumed["rng"])
            if self._resumed["ended"]:
                self._ended, self.max_iter = self._resumed["ended"], self.start_iter
            if comm.is_main_process():
                figures = self._resumed["figures"]
                cut_figures(self._metrics_file, figures["bytes"])
                go_on_writing(self._writers, figures["last_write"])

    @property
    def _metrics_file(self) -> Path:
        return Path(self.cfg.OUTPUT_DIR) / "metrics.json"

    # ---- its parts

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Detectron2's, its convolutions in the memory order that MODEL.CHANNELS_LAST says."""
        model = super().build_model(cfg)
        keys = cfg.MODEL
        if wants_channels_last(keys.CHANNELS_LAST, keys.DEVICE, half=cfg.SOLVER.AMP.ENABLED):
            to_channels_last(model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

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
        cls,
        cfg: CfgNode,
        model: torch.nn.Module,
        evaluators: list[DatasetEvaluator] | None = None,
        stop: StopRequest | None = None,
    ) -> Results:
        """Evaluate on each set of DATASETS.TEST; with one set, its figures alone.

        As Detectron2's, but masks are never pasted, and an image that does not decode is left out
        and named in the results. With TEST.AUG.ENABLED each set is evaluated a second time with
        test-time augmentation; those figures have names that end in _TTA. A request to `stop` ends
        it with `Interrupted`.
        """
        stop = stop or StopRequest()
        model = ready_for_inference(cfg, model)
        found: dict[str, dict[str, Any]] = {}
        failed: list[str] = []
        for place, name in enumerate(cfg.DATASETS.TEST):
            evaluator = evaluators[place] if evaluators else cls.build_evaluator(cfg, name)
            found[name] = cls._test_one(cfg, model, name, evaluator, failed, stop)
            if cfg.TEST.AUG.ENABLED and not evaluators:
                augmented = cls._test_one(
                    _without_resize(cfg),
                    RCNNWithTTA(cfg, model),
                    name,
                    cls.build_evaluator(cfg, name, "_TTA"),
                    [],
                    stop,
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
        stop: StopRequest,
    ) -> dict[str, Any]:
        with inference_context(cfg, model):
            done = run_inference(
                model,
                Interruptible(cls.build_test_loader(cfg, name), stop),
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
        """See `evaluators.build_evaluator`."""
        return build_evaluator(cfg, dataset_name, suffix)


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


def _share_buffers(model: torch.nn.Module) -> None:
    """Let all processes evaluate what the main one saves: running statistics are each one's own."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def _pads_to_global_batch(cfg: CfgNode) -> bool:
    asked = cfg.DATALOADER.PAD_TO_GLOBAL_BATCH
    return torch.device(cfg.MODEL.DEVICE).type == "cpu" if asked is None else bool(asked)

"""COCO figures of a model on a data set, under Detectron2's evaluator protocol."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

from .coco_metrics import CocoFigures, caps_for, evaluate_coco
from .coco_notes import OFFICIAL_CAPS
from .coco_report import classes_text, summary_text
from .coco_truth import GroundTruth
from .results import check_results, to_coco_results, write_results

RESULTS_FILE = "coco_instances_results.json"

_FIGURES = {
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
    "others": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
}

Json = dict[str, Any]


class CocoEvaluator(COCOEvaluator):
    """Detectron2's evaluator, names of its figures included, on exact and fast code.

    Beside stock's `pred_masks` it takes `pred_mask_rles`, run lengths in the original image, and
    masks that are not pasted yet (`results.to_coco_results`). A model that finds nothing has AP 0;
    Detectron2 says NaN, as if there were nothing to find.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        max_dets_per_image: int = 100,
        tasks: tuple[str, ...] = ("bbox", "segm"),
        kpt_oks_sigmas: tuple[float, ...] = (),
        backend: str = "auto",
        distributed: bool = True,
    ):
        """
        Args:
            dataset_name: a set in COCO's format
            output_dir: where `coco_instances_results.json` goes
            max_dets_per_image: detections that count; COCO's figures are defined for 100
            tasks: of bbox, segm, keypoints, boundary; what the model predicts
            kpt_oks_sigmas: one a keypoint; empty for COCO's own of the person
            backend: see `coco_metrics.evaluate_coco`
            distributed: whether the processes of a run each saw a part of the images
        """
        super().__init__(
            dataset_name,
            tasks=tasks,
            distributed=distributed,
            output_dir=output_dir,
            max_dets_per_image=max_dets_per_image,
            use_fast_impl=False,
            kpt_oks_sigmas=kpt_oks_sigmas,
        )
        self._logger = logging.getLogger(__name__)
        self._backend = backend
        self._sigmas = kpt_oks_sigmas or None
        self._caps = caps_for(max_dets_per_image)
        if max_dets_per_image > OFFICIAL_CAPS[-1]:
            self._logger.warning(
                "%d detections an image count (TEST.DETECTIONS_PER_IMAGE): AP and AR are not "
                "comparable with COCO's official figures, which stop at 100",
                max_dets_per_image,
            )

    def process(self, inputs: Sequence[Json], outputs: Sequence[Json]) -> None:
        """
        Args:
            inputs: what the model got: dicts with image_id
            outputs: what it answered: dicts with instances or proposals
        """
        category_ids = self._category_ids()
        for one, output in zip(inputs, outputs, strict=True):
            image = one["image_id"]
            prediction = {"image_id": image}
            if "instances" in output:
                instances = output["instances"].to(self._cpu_device)
                prediction["instances"] = to_coco_results(instances, image, category_ids)
            if "proposals" in output:
                prediction["proposals"] = output["proposals"].to(self._cpu_device)
            if len(prediction) > 1:
                self._predictions.append(prediction)

    def evaluate(self, img_ids: Sequence[Any] | None = None) -> dict[str, dict[str, float]]:
        """
        Args:
            img_ids: evaluate only these images
        Returns:
            in the first process {"bbox": {"AP": ..., "AP50": ..., "AP-person": ...}, "segm": ...},
            in percent, NaN without ground truth; {} in the others, and for a test set
        Raises:
            DataError: the ground truth cannot be evaluated against
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return {}
        if not predictions:
            self._logger.warning("The model was not run on any image of %s", self._metadata.name)
            return {}
        self._results: dict[str, dict[str, float]] = {}
        if self._output_dir:
            Path(self._output_dir).mkdir(parents=True, exist_ok=True)
        if "proposals" in predictions[0]:
            self._eval_box_proposals(predictions)
        if "instances" in predictions[0]:
            found = [result for one in predictions for result in one["instances"]]
            self._evaluate_instances(found, img_ids)
        return self._results

    def _evaluate_instances(self, found: list[Json], img_ids: Sequence[Any] | None) -> None:
        tasks = sorted(self._tasks)
        truth = self._truth(img_ids) if self._do_evaluation else None
        # Before they are written: what the model may have got wrong is no results file.
        check_results(found, None, tasks, f"detections in {self._metadata.name}")
        if self._output_dir:
            path = Path(self._output_dir, RESULTS_FILE)
            write_results(path, found)
            self._logger.info("Wrote %d detections to %s", len(found), path)
        if truth is None:
            self._logger.info("%s has no annotations: no figures", self._metadata.name)
            return
        figures = [
            evaluate_coco(
                truth,
                found,
                task,
                max_dets=self._caps,
                sigmas=self._sigmas if task == "keypoints" else None,
                backend=self._backend,
                checked=True,
            )
            for task in tasks
        ]
        for one in figures:
            self._results[one.task] = _named(one)
            if len(one.per_class) > 1:
                self._logger.info("Per class, %s:\n%s", one.task, classes_text(one))
        self._logger.info(
            "Figures of %s by %s, in percent:\n%s",
            self._metadata.name,
            " and ".join(sorted({one.backend for one in figures})),
            summary_text(figures),
        )

    def _truth(self, img_ids: Sequence[Any] | None) -> GroundTruth:
        category_ids = self._category_ids()
        chosen = None if category_ids is None else list(category_ids.values())
        truth = GroundTruth.of(self._coco_api.dataset, image_ids=img_ids, category_ids=chosen)
        names = truth.category_names
        classes = self._metadata.get("thing_classes")
        if category_ids is not None and classes is not None:
            known = {category: classes[one] for one, category in category_ids.items()}
            names = tuple(known[category] for category in truth.category_rows)
        return replace(truth, name=self._metadata.name, category_names=names)

    def _category_ids(self) -> Mapping[int, Any] | None:
        """The model's class -> the file's id; None where they are the same."""
        classes = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if classes is None:
            return None
        return {one: category for category, one in classes.items()}


def _named(figures: CocoFigures) -> dict[str, float]:
    """As Detectron2 names them; classes only where there are several."""
    names = _FIGURES.get(figures.task, _FIGURES["others"])
    named = {name: figures.stats[name] for name in names}
    if len(figures.per_class) > 1:
        named.update({f"AP-{one.name}": one.ap for one in figures.per_class})
    return named

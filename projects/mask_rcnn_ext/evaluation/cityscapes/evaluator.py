"""Cityscapes' instance figures by Detectron2's protocol: in memory, on any number of processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ...data.cityscapes.instances import read_instance_ids
from ...data.cityscapes.labels import BY_NAME
from ...data.cityscapes.tree import IMAGE_SUFFIX, SOURCES
from ...errors import DataError, UsageError
from .matching import Distances, ImageMatches, match_image
from .metrics import CLASSES, CityscapesFigures, cityscapes_figures
from .submission import clear_submission, foreign_file, write_submission

_SHOWN = 3  # examples named in a message


class CityscapesEvaluator(DatasetEvaluator):
    """Compares each image with its annotation as it comes, and keeps a few numbers of it.

    Nothing image-sized outlives `process`; what processes send each other is those numbers.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        gt_dir: str | Path | None = None,
        image_files: Iterable[str] | None = None,
        distances: Mapping[str, Distances] | None = None,
        submission_dir: str | Path | None = None,
        figures: bool = True,
    ):
        """
        Args:
            dataset_name: its metadata has thing_classes, Cityscapes' label names, and gt_dir
            gt_dir: folder with city/*_gtFine_instanceIds.png; by default the metadata's
            image_files: file_name of all images of the set. With it, an image that never comes
                counts as one where nothing was found; without, it does not count
            distances: image's name -> distances, see `distances.read_distances`; AP100m and AP50m
                are only defined with them
            submission_dir: where to write the benchmark's format too; None does not
            figures: whether to compare with the annotations; the test split has none
        Raises:
            UsageError: classes that are not Cityscapes', no gt_dir, neither figures nor submission,
                a submission_dir that holds something else
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._labels = _label_ids(dataset_name, metadata.get("thing_classes"))
        folder = gt_dir if gt_dir is not None else metadata.get("gt_dir")
        if figures and folder is None:
            raise UsageError(
                f"the metadata of {dataset_name!r} has no gt_dir, the folder with "
                f"CITY/*{SOURCES['instanceIds']}; register the set with one"
            )
        if not figures and submission_dir is None:
            raise UsageError("nothing to do: neither figures nor a submission_dir were asked for")
        self._name = dataset_name
        self._gt_dir = Path(folder) if figures and folder is not None else None
        self._image_files = None if image_files is None else sorted(set(image_files))
        self._distances = distances
        self._submission = Path(submission_dir) if submission_dir is not None else None
        if self._submission is not None:
            _refuse_foreign(self._submission)
        self._matches: dict[str, ImageMatches] = {}
        self._logger = logging.getLogger(__name__)

    def reset(self) -> None:
        self._matches = {}
        if self._submission is not None:
            if comm.is_main_process():
                clear_submission(self._submission)
            comm.synchronize()

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """
        Args:
            inputs: with file_name
            outputs: "instances" with scores, pred_classes and pred_masks, (R, H, W) bool, or
                pred_mask_rles, R of COCO's run lengths; without the key nothing was found
        Raises:
            DataError: no annotation of the image, or masks of another size
        """
        for one_input, output in zip(inputs, outputs, strict=True):
            file_name = one_input["file_name"]
            masks, classes, scores = _predictions(output.get("instances"))
            labels = [self._labels[index] for index in classes]
            name = image_name(file_name)
            if self._submission is not None:
                write_submission(self._submission, name, masks, labels, scores)
            if self._gt_dir is not None:
                self._matches[name] = self._match(file_name, masks, labels, scores)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Figures in percent: {"cityscapes": {"AP", "AP50", "AP-person", "AP50-person", ...}}.

        With distances also AP100m, AP50m, AP50_50m. NaN without objects to find. {} in processes
        that are not the first, and without figures.
        """
        comm.synchronize()
        gathered = comm.gather(self._matches)
        if not comm.is_main_process() or self._gt_dir is None:
            return {}
        # An image that two processes had counts once.
        matches = {name: match for part in gathered for name, match in part.items()}
        self._add_missing(matches)
        if not matches:
            self._logger.warning("No image of %s was evaluated: no figures", self._name)
            return {"cityscapes": {}}
        figures = cityscapes_figures([matches[name] for name in sorted(matches)])
        return {"cityscapes": self._report(figures, len(matches))}

    def _match(self, file_name: str, masks: Any, labels: list[int], scores: Any) -> ImageMatches:
        assert self._gt_dir is not None
        name = image_name(file_name)
        distances = None if self._distances is None else self._distances.get(name)
        if self._distances is not None and distances is None:
            raise DataError(f"there are distances for other images, but none for {name}")
        ids = read_instance_ids(find_ids(self._gt_dir, file_name))
        return match_image(ids, masks, labels, scores, name=name, distances=distances)

    def _add_missing(self, matches: dict[str, ImageMatches]) -> None:
        if self._image_files is None:
            return
        missing = [file for file in self._image_files if image_name(file) not in matches]
        for file in missing:
            matches[image_name(file)] = self._match(file, [], [], [])
        if missing:
            self._logger.warning(
                "%d of %d images of %s have no predictions, they count as images where nothing was "
                "found: %s%s",
                len(missing),
                len(self._image_files),
                self._name,
                ", ".join(image_name(file) for file in missing[:_SHOWN]),
                ", ..." if len(missing) > _SHOWN else "",
            )

    def _report(self, figures: CityscapesFigures, images: int) -> dict[str, float]:
        results = _percent(figures.averages())
        unjudged = []
        for name in CLASSES:
            of_class = _percent(figures.of_class(name))
            results.update({f"{key}-{name}": value for key, value in of_class.items()})
            if math.isnan(of_class["AP"]):
                unjudged.append(name)
        self._logger.info(
            "Cityscapes figures of %s, %d images: %s",
            self._name,
            images,
            ", ".join(f"{key} {value:.3f}" for key, value in results.items() if "-" not in key),
        )
        if unjudged:
            self._logger.info(
                "No ground truth of %s in %s that counts (at least 100 pixels, no group): their AP "
                "is NaN and left out of the averages",
                ", ".join(unjudged),
                self._name,
            )
        return results


def image_name(file_name: str) -> str:
    """The benchmark's name of an image, e.g. munster_000000_000019, from its path."""
    base = Path(file_name).name
    return base.removesuffix(IMAGE_SUFFIX) if base.endswith(IMAGE_SUFFIX) else Path(base).stem


def find_ids(gt_dir: Path, file_name: str) -> Path:
    """The instance image of a picture.

    Raises:
        DataError: there is none
    """
    name = image_name(file_name)
    cities = dict.fromkeys([Path(file_name).parent.name, name.split("_")[0]])
    places = [gt_dir / city / (name + SOURCES["instanceIds"]) for city in cities]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"{file_name} has no annotation: expected {' or '.join(map(str, places))}; unpack "
        "gtFine_trainvaltest.zip again, or evaluate a split that has annotations"
    )


def _label_ids(dataset_name: str, names: Sequence[str] | None) -> list[int]:
    """Label ids in the order of the model's classes."""
    if not names:
        raise UsageError(f"the metadata of {dataset_name!r} has no thing_classes")
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UsageError(
            f"{dataset_name!r} has the class {unknown[0]!r}, which is not Cityscapes'; its "
            f"instance classes are {', '.join(CLASSES)}"
        )
    return [BY_NAME[name].id for name in names]


def _predictions(instances: Any) -> tuple[Any, list[int], list[float]]:
    """Masks, class indices and scores, on the CPU."""
    if instances is None or not len(instances):
        return [], [], []
    if instances.has("pred_mask_rles"):
        masks: Any = list(instances.pred_mask_rles)
    elif instances.has("pred_masks"):
        masks = torch.as_tensor(instances.pred_masks).detach().cpu().numpy()
    else:
        raise UsageError(
            f"the predictions have the fields {', '.join(sorted(instances.get_fields()))} but "
            "neither pred_masks nor pred_mask_rles; Cityscapes' figures need masks (MODEL.MASK_ON)"
        )
    classes = instances.pred_classes.detach().cpu().tolist()
    return masks, classes, instances.scores.detach().cpu().double().tolist()


def _refuse_foreign(folder: Path) -> None:
    foreign = foreign_file(folder)
    if foreign is not None:
        raise UsageError(
            f"{foreign} is no file of a Cityscapes submission; give an empty or new folder"
        )


def _percent(figures: Mapping[str, float]) -> dict[str, float]:
    return {key: 100 * value for key, value in figures.items()}

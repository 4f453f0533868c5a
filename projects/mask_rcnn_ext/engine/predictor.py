"""A trained model behind one call: images in, arrays out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from PIL import Image

from ..config import load_config
from ..data.augmentations.build import build_augmentations
from ..data.augmentations.resize import channels_first
from ..errors import DataError, UsageError
from ..evaluation.raw_masks import Encoder, detect
from ..modeling.test_time_augmentation import RCNNWithTTA
from .checkpoint import Checkpointer
from .prediction import Prediction
from .setup import check_device


class Predictor:
    """Detects objects, with masks and keypoints if the model has them.

        predictor = Predictor("configs/.../mask_rcnn_R_50_FPN_1x.yaml", "output/model_final.pth")
        prediction = predictor("street.jpg")
        prediction.boxes, prediction.labels, prediction.masks()

    Works on a CPU and on a GPU. Images are resized, batched and put back into their own frame as in
    evaluation, and masks are pasted by the same code, so figures and pictures agree.
    """

    def __init__(
        self,
        config: str | Path | CfgNode,
        weights: str | Path | None = None,
        overrides: Sequence[str] = (),
        *,
        score_threshold: float = 0.5,
        max_detections: int | None = None,
        device: str | None = None,
        augment: bool = False,
        class_names: Sequence[str] | None = None,
    ):
        """
        Args:
            config: a config file, or a config; a run's `config.yaml` has everything
            weights: a checkpoint; by default the config's MODEL.WEIGHTS
            overrides: KEY VALUE KEY VALUE ..., as on the command line
            score_threshold: detections below it are left out, 0 to 1
            max_detections: at most so many in an image; by default TEST.DETECTIONS_PER_IMAGE
            device: "cpu", "cuda", "cuda:1"; by default the config's, or the CPU without a GPU
            augment: test-time augmentation at the scales of TEST.AUG (paper, appendix B)
            class_names: by default those that the checkpoint or the data set has
        Raises:
            UserError: no such file, weights that cannot be loaded, no such device
        """
        self.cfg = _prepare(config, weights, overrides, score_threshold, max_detections, device)
        model = build_model(self.cfg).eval()
        checkpoint = Checkpointer(model, save_dir="").load(self.cfg.MODEL.WEIGHTS)
        self.model: torch.nn.Module = RCNNWithTTA(self.cfg, model) if augment else model
        # Test-time augmentation resizes by itself.
        steps = [] if augment else build_augmentations(self.cfg, is_train=False)
        self._augmentations = T.AugmentationList(steps)
        self._encoder = Encoder()
        names = class_names or checkpoint.get("class_names")
        self.class_names, self.category_ids = _classes(self.cfg, names)
        self._skeleton = _skeleton(self.cfg) if self.cfg.MODEL.KEYPOINT_ON else []

    def __call__(self, images: np.ndarray | str | Path | Sequence[np.ndarray | str | Path]) -> Any:
        """
        Args:
            images: one image or several, which make one batch; each a file or an array (H, W, 3)
                or (H, W), uint8, RGB
        Returns:
            a Prediction, or for several images a list of them
        Raises:
            DataError: a file that does not decode; names it
            UsageError: an array of another kind
        """
        if isinstance(images, np.ndarray | str | os.PathLike):
            return self._predict([images])[0]
        return self._predict(images)

    def _predict(self, images: Iterable[np.ndarray | str | Path]) -> list[Prediction]:
        inputs = [self._input(read_rgb(image)) for image in images]
        if not inputs:
            return []
        with torch.no_grad():
            outputs = detect(self.model, inputs)
        return [self._prediction(output["instances"]) for output in outputs]

    def _input(self, image: np.ndarray) -> dict[str, Any]:
        height, width = image.shape[:2]
        pixels = image[:, :, ::-1] if self.cfg.INPUT.FORMAT == "BGR" else image
        given = T.AugInput(np.ascontiguousarray(pixels))
        self._augmentations(given)
        tensor = channels_first(given.image).contiguous()
        return {"image": tensor, "height": height, "width": width}

    def _prediction(self, instances: Any) -> Prediction:
        rles = self._encoder.submit(instances)
        found = instances.to("cpu")
        keypoints = found.pred_keypoints.numpy() if found.has("pred_keypoints") else None
        return Prediction(
            image_size=tuple(found.image_size),
            boxes=found.pred_boxes.tensor.numpy(),
            scores=found.scores.numpy(),
            classes=found.pred_classes.numpy(),
            class_names=self.class_names,
            category_ids=self.category_ids,
            rles=None if rles is None else [_text(rle) for rle in rles.result()],
            keypoints=keypoints,
            skeleton=self._skeleton,
        )


def read_rgb(image: np.ndarray | str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF tag says.

    Raises:
        DataError: the file is missing or does not decode
        UsageError: an array of another form
    """
    if isinstance(image, np.ndarray):
        gray_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype != np.uint8 or not gray_or_rgb or 0 in image.shape:
            raise UsageError(
                f"an image is an array of shape {image.shape} and type {image.dtype}; expected "
                "(H, W, 3) or (H, W), uint8, RGB"
            )
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    try:
        return utils.read_image(str(image), "RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        what = "does not decode" if os.path.exists(image) else "does not exist"
        raise DataError(f"image {image} {what} ({error})") from error


def _prepare(
    config: str | Path | CfgNode,
    weights: str | Path | None,
    overrides: Sequence[str],
    score_threshold: float,
    max_detections: int | None,
    device: str | None,
) -> CfgNode:
    if not 0 <= score_threshold <= 1:
        raise UsageError(f"the score threshold is {score_threshold}, expected 0 to 1")
    if max_detections is not None and max_detections < 1:
        raise UsageError(f"at most {max_detections} detections? expected 1 or more")
    cfg = config.clone() if isinstance(config, CfgNode) else load_config(config, overrides).clone()
    cfg.defrost()
    if isinstance(config, CfgNode) and overrides:
        cfg.merge_from_list(list(overrides))
    if weights is not None:
        cfg.MODEL.WEIGHTS = str(weights)
    if not cfg.MODEL.WEIGHTS:
        raise UsageError("a predictor needs trained weights: give a checkpoint or MODEL.WEIGHTS")
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = float(score_threshold)
    if max_detections is not None:
        cfg.TEST.DETECTIONS_PER_IMAGE = max_detections
    if device is not None:
        cfg.MODEL.DEVICE = device
    elif torch.device(cfg.MODEL.DEVICE).type == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    check_device(cfg.MODEL.DEVICE, 1)
    if cfg.MODEL.LOAD_PROPOSALS:
        raise UsageError(
            "MODEL.LOAD_PROPOSALS is True: this model needs proposals from a file for each image; "
            "only one that has its own RPN can predict"
        )
    cfg.freeze()
    return cfg


def _classes(cfg: CfgNode, names: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """Names and category ids: given, of a data set of the config, or plain numbers."""
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    ids = list(range(1, count + 1))
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        metadata = MetadataCatalog.get(dataset)
        known = metadata.get("thing_classes")
        if known and len(known) == count and (names is None or list(names) == list(known)):
            mapping = metadata.get("thing_dataset_id_to_contiguous_id")
            if mapping and len(mapping) == count:
                ids = sorted(mapping, key=mapping.__getitem__)
            return list(known), ids
    if names is None:
        return [f"class {number}" for number in ids], ids
    if len(names) != count:
        raise UsageError(
            f"{len(names)} class names for a model of {count} classes "
            f"(MODEL.ROI_HEADS.NUM_CLASSES): {', '.join(list(names)[:10])}"
        )
    return list(names), ids


def _skeleton(cfg: CfgNode) -> list[tuple[int, int]]:
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        metadata = MetadataCatalog.get(dataset)
        names = metadata.get("keypoint_names")
        rules = metadata.get("keypoint_connection_rules")
        if names and rules:
            places = {name: place for place, name in enumerate(names)}
            return [(places[a], places[b]) for a, b, *_ in rules if a in places and b in places]
    return []


def _text(rle: Any) -> dict[str, Any]:
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}

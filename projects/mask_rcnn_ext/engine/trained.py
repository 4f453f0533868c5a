"""A trained model with what is needed to use it: its config, its classes, its input transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Instances

from ..config import load_config
from ..data.augmentations.build import build_augmentations
from ..data.augmentations.resize import channels_first
from ..errors import UsageError
from ..evaluation.raw_masks import Encoder
from .checkpoint import Checkpointer
from .prediction import Prediction
from .setup import check_device


@dataclass(frozen=True)
class TrainedModel:
    """
    Attributes:
        cfg: frozen
        model: in evaluation mode, on its device
        class_names: of the classes, in the order of the model's outputs
        category_ids: what the data set's annotation file calls them
        skeleton: pairs of keypoint indices that belong together
    """

    cfg: CfgNode
    model: torch.nn.Module
    class_names: list[str]
    category_ids: list[int]
    skeleton: list[tuple[int, int]]

    def input_of(self, image: np.ndarray, *, resize: bool = True) -> dict[str, Any]:
        """What the model takes: resized as in evaluation, in the config's colour order.

        Args:
            image: (H, W, 3) uint8 RGB
            resize: False for a model that resizes by itself
        Returns:
            "image" (3, h, w) uint8, "height" H and "width" W, for one image of a batch
        """
        height, width = image.shape[:2]
        pixels = image[:, :, ::-1] if self.cfg.INPUT.FORMAT == "BGR" else image
        given = T.AugInput(np.ascontiguousarray(pixels))
        if resize:
            T.AugmentationList(build_augmentations(self.cfg, is_train=False))(given)
        tensor = channels_first(given.image).contiguous()
        return {"image": tensor, "height": height, "width": width}

    def prediction_of(self, instances: Instances) -> Prediction:
        """
        Args:
            instances: of `detect`, in the frame of the original image; loses its masks
        """
        rles = Encoder().submit(instances)
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
            skeleton=self.skeleton,
        )


def load_trained(
    config: str | Path | CfgNode,
    weights: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    score_threshold: float = 0.5,
    max_detections: int | None = None,
    device: str | None = None,
    class_names: Sequence[str] | None = None,
    has_proposals: bool = False,
) -> TrainedModel:
    """See `Predictor`, whose arguments these are.

    Args:
        has_proposals: whether the caller gives proposals to a model that needs some
    Raises:
        UserError: no such file, weights that cannot be loaded, no such device
    """
    cfg = _prepare(config, weights, overrides, score_threshold, max_detections, device)
    if cfg.MODEL.LOAD_PROPOSALS and not has_proposals:
        raise UsageError(
            "MODEL.LOAD_PROPOSALS is True: this model needs proposals from a file for each image; "
            "only one that has its own RPN can predict"
        )
    model = build_model(cfg).eval()
    checkpoint = Checkpointer(model, save_dir="").load(cfg.MODEL.WEIGHTS)
    names = class_names or checkpoint.get("class_names")
    return TrainedModel(cfg, model, *_classes(cfg, names), _skeleton(cfg))


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
    cfg.MODEL.DEVICE = _device(cfg.MODEL.DEVICE, device)
    cfg.freeze()
    return cfg


def _device(configured: str, asked: str | None) -> str:
    """The device that was asked for; else the config's, or the CPU where there is no GPU."""
    name = configured if asked is None else asked
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"{name!r} is no device; expected cpu, cuda or cuda:1") from error
    if asked is None and device.type == "cuda" and not torch.cuda.is_available():
        return "cpu"
    check_device(name, 1)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{name}: PyTorch sees {torch.cuda.device_count()} GPUs, from cuda:0 on")
    return name


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
    if not cfg.MODEL.KEYPOINT_ON:
        return []
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

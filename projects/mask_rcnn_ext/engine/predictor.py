"""A trained model behind one call: images in, arrays out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import ProposalNetwork
from PIL import Image

from ..data.mappers.images import read_image
from ..errors import DataError, UsageError
from ..evaluation.raw_masks import detect
from ..modeling.test_time_augmentation import RCNNWithTTA
from .precision import inference_context, ready_for_inference
from .prediction import Prediction
from .trained import load_trained

Picture = np.ndarray | str | Path


class Predictor:
    """Detects objects, with masks and keypoints if the model has them.

        predictor = Predictor("configs/.../mask_rcnn_R_50_FPN_1x.yaml", "output/model_final.pth")
        prediction = predictor("street.jpg")
        prediction.boxes, prediction.labels, prediction.masks()

    Works on a CPU and on a GPU. Images are resized, batched and put back into their own frame as in
    evaluation, and masks are pasted by the same code, so figures and pictures agree.

    Attributes:
        cfg: frozen, with the options below in it
        model: in evaluation mode
        class_names, category_ids: of the classes, see `Prediction`
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
        self._trained = load_trained(
            config,
            weights,
            overrides,
            score_threshold=score_threshold,
            max_detections=max_detections,
            device=device,
            class_names=class_names,
        )
        self.cfg, self.model = self._trained.cfg, self._trained.model
        self.class_names = self._trained.class_names
        self.category_ids = self._trained.category_ids
        if isinstance(self.model, ProposalNetwork):
            raise UsageError(
                "this model only proposes regions (MODEL.META_ARCHITECTURE ProposalNetwork): it "
                "knows no classes; mask-rcnn-ext inspect shows what it proposes"
            )
        self._augment = augment
        self.model = ready_for_inference(self.cfg, self.model)
        if augment:
            self.model = RCNNWithTTA(self.cfg, self.model)

    @overload
    def __call__(self, images: Picture) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[Picture]) -> list[Prediction]: ...
    def __call__(self, images: Picture | Sequence[Picture]) -> Prediction | list[Prediction]:
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

    def _predict(self, images: Iterable[Picture]) -> list[Prediction]:
        # Test-time augmentation resizes by itself.
        inputs = [
            self._trained.input_of(read_rgb(image), resize=not self._augment) for image in images
        ]
        if not inputs:
            return []
        with torch.no_grad(), inference_context(self.cfg, self.model):
            outputs = detect(self.model, inputs)
        return [self._trained.prediction_of(output["instances"]) for output in outputs]


def read_rgb(image: Picture) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF tag says; an alpha channel is dropped.

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
        return np.ascontiguousarray(read_image(str(image), "RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        what = "does not decode" if os.path.exists(image) else "does not exist"
        raise DataError(f"image {image} {what} ({error})") from error

"""The model that labels: it sees an image in several views.

Letters: P proposals of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import ProposalNetwork
from detectron2.structures import Boxes, Instances

from ...data.proposals import Proposals
from ...errors import DataError, UsageError
from ...evaluation.raw_masks import detect
from ...modeling.test_time_augmentation import RCNNWithTTA
from ..prediction import Prediction
from ..predictor import read_rgb
from ..trained import load_trained
from .images import Unlabelled


class ViewsTeacher:
    """A trained R-CNN with the views of TEST.AUG; its RPN may be another model.

    Attributes:
        cfg: frozen
        class_names: in the order of the model's outputs
    """

    def __init__(
        self, cfg: CfgNode, weights: str | None = None, proposals: Proposals | None = None
    ):
        """
        Args:
            cfg: detections below MODEL.ROI_HEADS.SCORE_THRESH_TEST are left out
            weights: a checkpoint; by default MODEL.WEIGHTS
            proposals: of the images, for a model with MODEL.LOAD_PROPOSALS
        Raises:
            UsageError: a model with an RPN of its own and proposals, or neither
            UserError: weights that cannot be loaded
        """
        if proposals is not None and not cfg.MODEL.LOAD_PROPOSALS:
            raise UsageError(
                "proposals are given, but this model has its own RPN (MODEL.LOAD_PROPOSALS False)"
            )
        if proposals is None and cfg.MODEL.LOAD_PROPOSALS:
            raise UsageError(
                "MODEL.LOAD_PROPOSALS is True: this model's RPN was trained apart. Dump the "
                "proposals of the images with it (docs/proposals.md) and give the file: --proposals"
            )
        self._trained = load_trained(
            cfg,
            weights,
            score_threshold=cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            has_proposals=proposals is not None,
        )
        self.cfg, self.class_names = self._trained.cfg, self._trained.class_names
        if isinstance(self._trained.model, ProposalNetwork):
            raise UsageError(
                "this model only proposes regions (MODEL.META_ARCHITECTURE ProposalNetwork)"
            )
        self._views = RCNNWithTTA(self.cfg, self._trained.model)
        self._proposals = proposals
        self._rows = {key: row for row, key in enumerate(proposals.ids)} if proposals else {}

    def check_covers(self, images: Sequence[Unlabelled]) -> None:
        """
        Raises:
            DataError: the proposals lack one of these images
        """
        if self._proposals is None:
            return
        missing = [one for one in images if str(one.id) not in self._rows]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(images)} images have no proposals, the first is id "
                f"{missing[0].id} ({missing[0].file_name}); dump them for these images"
            )

    def __call__(self, one: Unlabelled) -> Prediction:
        """
        Raises:
            DataError: the image does not decode; names it
        """
        pixels = read_rgb(one.path)
        given = self._trained.input_of(pixels, resize=False)  # views resize by themselves
        if self._proposals is not None:
            given["proposals"] = self._proposals_of(one, pixels)
        with torch.no_grad():
            output = detect(self._views, [given])[0]
        return self._trained.prediction_of(output["instances"])

    def _proposals_of(self, one: Unlabelled, pixels: np.ndarray) -> Instances:
        assert self._proposals is not None
        row = self._rows[str(one.id)]
        logits = np.asarray(self._proposals.logits[row], np.float32)
        best = np.argsort(-logits, kind="stable")[
            : self.cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
        ]
        height, width = pixels.shape[:2]
        boxes = Boxes(torch.from_numpy(np.asarray(self._proposals.boxes[row], np.float32)[best]))
        boxes.clip((height, width))
        kept = boxes.nonempty()
        return Instances(
            (height, width),
            proposal_boxes=boxes[kept],
            objectness_logits=torch.from_numpy(logits[best])[kept],
        )

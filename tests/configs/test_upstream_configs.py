"""Our configs of Detectron2's names resolve to Detectron2's settings, but for a stated list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import detectron2
import pytest
from detectron2.config import get_cfg

from mask_rcnn_ext import add_mask_rcnn_ext_config, load_config
from mask_rcnn_ext.config import flatten

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"

HEAD = {
    "MODEL.PROPOSAL_GENERATOR.NAME",
    "MODEL.ROI_HEADS.NAME",
    "MODEL.ROI_MASK_HEAD.NAME",
    "SOLVER.REFERENCE_BATCH",
}
DIFFERENT = {
    "Base-RCNN-C4.yaml": HEAD | {"MODEL.MASK_ON"},
    "Base-RCNN-FPN.yaml": HEAD | {"MODEL.MASK_ON"},
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml": HEAD,
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x.yaml": HEAD,
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml": HEAD,
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml": HEAD,
    "COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x.yaml": HEAD,
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml": HEAD,
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml": HEAD,
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml": HEAD,
}
SHARED_NAMES = sorted(
    str(p.relative_to(CONFIGS))
    for folder in (".", "COCO-Detection", "COCO-InstanceSegmentation", "COCO-Keypoints")
    for p in (CONFIGS / folder).glob("*.yaml")
    if (ZOO / p.relative_to(CONFIGS)).is_file()
)

needs_zoo = pytest.mark.skipif(
    not ZOO.is_dir(), reason="this Detectron2 was installed without model_zoo/configs"
)


def _upstream(name: str) -> dict[str, Any]:
    cfg = get_cfg()
    add_mask_rcnn_ext_config(cfg)
    cfg.merge_from_file(str(ZOO / name))
    return dict(flatten(cfg))


@needs_zoo
def test_every_shared_name_is_compared():
    assert sorted(DIFFERENT) == SHARED_NAMES


@needs_zoo
@pytest.mark.parametrize("name", DIFFERENT)
def test_resolves_to_upstreams(name: str):
    ours, theirs = dict(flatten(load_config(CONFIGS / name))), _upstream(name)
    assert ours.keys() == theirs.keys()
    assert {key for key in ours if ours[key] != theirs[key]} == DIFFERENT[name]


@needs_zoo
@pytest.mark.parametrize("kind", ["C4", "FPN"])
def test_the_1x_of_resnet_101_is_upstreams_3x_with_the_1x_schedule(kind: str):
    """Detectron2 has no such file: its depth comes from the 3x, its schedule from ResNet-50's."""
    folder = "COCO-InstanceSegmentation"
    ours = dict(flatten(load_config(CONFIGS / folder / f"mask_rcnn_R_101_{kind}_1x.yaml")))
    expected = _upstream(f"{folder}/mask_rcnn_R_101_{kind}_3x.yaml")
    short = _upstream(f"{folder}/mask_rcnn_R_50_{kind}_1x.yaml")
    expected |= {key: short[key] for key in ("SOLVER.STEPS", "SOLVER.MAX_ITER")}
    assert {key for key in ours if ours[key] != expected[key]} == HEAD

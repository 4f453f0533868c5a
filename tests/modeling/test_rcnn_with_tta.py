"""Test-time augmentation: scales and mirror images, for boxes, masks and keypoints."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Boxes, Instances

from mask_rcnn_ext import load_config
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling.test_time_augmentation import RCNNWithTTA, mirrored_keypoints

NAMES = ["nose", "left_eye", "right_eye"]


@pytest.fixture(scope="module", autouse=True)
def schema():
    metadata = MetadataCatalog.get("tta_test_persons")
    metadata.set(keypoint_names=NAMES, keypoint_flip_map=[("left_eye", "right_eye")])


def config(*overrides, keypoints=False):
    words = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    words += ["TEST.AUG.MIN_SIZES", "(64, 96)", "TEST.DETECTIONS_PER_IMAGE", "8"]
    words += ["DATASETS.TRAIN", "('tta_test_persons',)"]
    if keypoints:
        words += ["MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "3"]
        words += ["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(16,)"]
    return load_config("quickstart/mask_rcnn_R_18_FPN_scenes.yaml", [*words, *overrides])


def build(cfg):
    torch.manual_seed(3)
    return build_model(cfg).eval()


@pytest.fixture(scope="module")
def image():
    smooth = np.random.default_rng(0).uniform(0, 255, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
    return torch.from_numpy(smooth.astype(np.uint8).transpose(2, 0, 1).copy())


def sample(image, height=64, width=64):
    return {"image": image, "height": height, "width": width}


def sorted_by_score(instances):
    return instances[instances.scores.argsort(descending=True, stable=True)]


def test_boxes_and_masks_are_detectron2s(image):
    cfg = config()
    model = build(cfg)
    with torch.no_grad():
        ours = RCNNWithTTA(cfg, model)([sample(image, 80, 90)])[0]["instances"]
        # Its batches are of three, with views padded to the largest: ours are of one size.
        stock = GeneralizedRCNNWithTTA(cfg, model, batch_size=2)([sample(image, 80, 90)])
    stock = stock[0]["instances"]
    assert len(ours) == len(stock) == 8
    assert torch.equal(ours.pred_boxes.tensor, stock.pred_boxes.tensor)
    assert torch.equal(ours.pred_masks, stock.pred_masks)
    assert ours.image_size == (80, 90)


def test_masks_before_pasting(image):
    cfg = config()
    tta = RCNNWithTTA(cfg, build(cfg))
    with torch.no_grad():
        raw = tta.inference([sample(image)], do_postprocess=False)[0]
    assert raw.pred_masks.shape == (8, 1, 28, 28)
    assert raw.image_size == (64, 64)


def test_the_mirror_image_of_a_mirror_image_changes_nothing(image):
    cfg = config(keypoints=True)
    tta = RCNNWithTTA(cfg, build(cfg))
    with torch.no_grad():
        there = sorted_by_score(tta.inference([sample(image)], do_postprocess=False)[0])
        mirrored = sample(image.flip(2))
        back = sorted_by_score(tta.inference([mirrored], do_postprocess=False)[0])
    assert len(there) == len(back) == 8
    boxes = back.pred_boxes.tensor[:, [2, 1, 0, 3]]
    boxes[:, [0, 2]] = 64 - boxes[:, [0, 2]]
    assert torch.allclose(boxes, there.pred_boxes.tensor, atol=1e-3)
    assert torch.allclose(back.scores, there.scores, atol=1e-5)
    assert torch.allclose(back.pred_masks.flip(3), there.pred_masks, atol=1e-4)
    # left is right now
    keypoints = back.pred_keypoints[:, [0, 2, 1]]
    keypoints[:, :, 0] = 64 - keypoints[:, :, 0]
    # The place of a heat map's maximum may jump where two cells are equal to rounding.
    close = (keypoints[:, :, :2] - there.pred_keypoints[:, :, :2]).abs().amax(-1) < 0.05
    assert close.float().mean() >= 0.9


def test_one_view_is_the_plain_model(image):
    cfg = config("TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", "False", keypoints=True)
    model = build(cfg)
    with torch.no_grad():
        plain = model([sample(image)])[0]["instances"]
        tta = RCNNWithTTA(cfg, model)([sample(image)])[0]["instances"]
    assert len(tta) == len(plain)
    assert torch.allclose(tta.pred_boxes.tensor, plain.pred_boxes.tensor, atol=1e-3)
    assert torch.allclose(tta.pred_keypoints, plain.pred_keypoints, atol=1e-2)
    assert (tta.pred_masks == plain.pred_masks).float().mean() > 0.999


def test_nothing_found(image):
    cfg = config("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.1", keypoints=True)
    with torch.no_grad():
        found = RCNNWithTTA(cfg, build(cfg))([sample(image)])[0]["instances"]
    assert len(found) == 0
    assert found.pred_masks.shape == (0, 64, 64)
    assert found.pred_keypoints.shape == (0, 3, 3)


def test_left_and_right():
    assert mirrored_keypoints(["tta_test_none", "tta_test_persons"]) == [0, 2, 1]
    with pytest.raises(UsageError, match=r"none of tta_test_none .*TEST\.AUG\.FLIP False"):
        mirrored_keypoints(["tta_test_none"])


APART = ["MODEL.LOAD_PROPOSALS", "True", "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]


def proposals(boxes, size=(64, 64)):
    return Instances(
        size,
        proposal_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)),
        objectness_logits=torch.zeros(len(boxes)),
    )


BOXES = [[4, 8, 30, 40], [20, 20, 60, 50], [0, 30, 25, 64]]


def test_precomputed_proposals_go_into_each_view(image):
    cfg = config("TEST.AUG.MIN_SIZES", "(64, 128)", *APART)
    tta = RCNNWithTTA(cfg, build(cfg))
    given = sample(image, 128, 256) | {"proposals": proposals([[4, 8, 30, 40]])}
    views, _ = tta._get_augmented_inputs(given)
    found = [view["proposals"].proposal_boxes.tensor.tolist() for view in views]
    assert found == [[[4, 8, 30, 40]], [[34, 8, 60, 40]], [[8, 16, 60, 80]], [[68, 16, 120, 80]]]
    assert [view["proposals"].image_size for view in views] == [(64, 64)] * 2 + [(128, 128)] * 2
    assert given["proposals"].proposal_boxes.tensor.tolist() == [[4, 8, 30, 40]]


def test_precomputed_proposals(image):
    one_view = ["TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", "False"]
    cfg = config(*one_view, *APART)
    model = build(cfg)
    given = sample(image) | {"proposals": proposals(BOXES)}
    with torch.no_grad():
        plain = model([given])[0]["instances"]
        found = RCNNWithTTA(cfg, model)([given])[0]["instances"]
        cfg = config(*APART)
        tta = RCNNWithTTA(cfg, model)
        there = sorted_by_score(tta.inference([given], do_postprocess=False)[0])
        mirrored = [[64 - x1, y0, 64 - x0, y1] for x0, y0, x1, y1 in BOXES]
        given = sample(image.flip(2)) | {"proposals": proposals(mirrored)}
        back = sorted_by_score(tta.inference([given], do_postprocess=False)[0])
    assert len(plain) == 8
    assert torch.allclose(found.pred_boxes.tensor, plain.pred_boxes.tensor, atol=1e-3)
    boxes = back.pred_boxes.tensor[:, [2, 1, 0, 3]]
    boxes[:, [0, 2]] = 64 - boxes[:, [0, 2]]
    assert torch.allclose(boxes, there.pred_boxes.tensor, atol=1e-3)
    assert torch.allclose(back.scores, there.scores, atol=1e-5)

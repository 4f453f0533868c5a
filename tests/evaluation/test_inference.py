"""The loop over a test set: same masks as Detectron2's, and bad images do not end it."""

import numpy as np
import pytest
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask

from mask_rcnn_ext import load_config
from mask_rcnn_ext.evaluation.inference import run_inference
from mask_rcnn_ext.evaluation.raw_masks import Encoder, detect, gives_raw_masks


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    overrides = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    cfg = load_config("quickstart/mask_rcnn_R_18_FPN_scenes.yaml", overrides)
    return build_model(cfg).eval()


def sample(number, height, width):
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(0, 256, (3, 96, 128), generator=generator, dtype=torch.uint8)
    return {"image": image, "image_id": number, "height": height, "width": width}


BATCHES = [
    [sample(1, 96, 128), sample(2, 300, 77)],
    [{"failed": "image b.jpg (image id 9) does not decode"}],
    [sample(3, 50, 60), {"failed": "image c.jpg does not exist"}],
]


class Keeping(DatasetEvaluator):
    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        for one, output in zip(inputs, outputs, strict=True):
            self.seen.append((one["image_id"], output["instances"]))

    def evaluate(self):
        return {"seen": {"n": len(self.seen)}}


@pytest.mark.parametrize("processes", [0, 1])
def test_the_same_detections_and_masks_as_detectron2(model, processes):
    keeping = Keeping()
    done = run_inference(model, BATCHES, keeping, encoding_processes=processes)
    assert done.results == {"seen": {"n": 3}}
    assert done.images == 3
    assert done.failed == [
        "image b.jpg (image id 9) does not decode",
        "image c.jpg does not exist",
    ]
    assert [number for number, _ in keeping.seen] == [1, 2, 3]
    with torch.no_grad():
        stock = [model([one])[0]["instances"] for b in BATCHES for one in b if "image" in one]
    for (_, ours), theirs in zip(keeping.seen, stock, strict=True):
        assert ours.image_size == theirs.image_size
        assert len(ours) == len(theirs) > 0
        assert not ours.has("pred_masks")
        assert torch.allclose(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=1e-3)
        masks = [coco_mask.decode(rle) for rle in ours.pred_mask_rles]
        different = np.mean(np.stack(masks) != theirs.pred_masks.numpy())
        assert different < 1e-4  # both images of a batch are convolved together: rounding


def test_one_image_at_a_time_is_equal_to_the_last_bit(model):
    one = sample(4, 200, 150)
    with torch.no_grad():
        theirs = model([one])[0]["instances"]
        ours = detect(model, [one])[0]["instances"]
    assert ours.get("mask_probabilities").shape[1] == 1
    rles = Encoder().submit(ours).result()
    stock = coco_mask.encode(np.asfortranarray(theirs.pred_masks.numpy().transpose(1, 2, 0), "u1"))
    assert [(rle["size"], rle["counts"]) for rle in rles] == [
        (rle["size"], rle["counts"]) for rle in stock
    ]
    assert torch.equal(ours.scores, theirs.scores)
    assert not ours.has("mask_probabilities")


def test_a_model_without_masks_and_one_that_is_no_rcnn(model):
    boxes_only = load_config(
        "quickstart/mask_rcnn_R_18_FPN_scenes.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.MASK_ON", "False"],
    )
    without = build_model(boxes_only).eval()
    with torch.no_grad():
        found = detect(without, [sample(1, 96, 128)])[0]["instances"]
    assert Encoder().submit(found) is None

    class Other(torch.nn.Module):
        def forward(self, inputs):
            return [{"mine": one["image_id"]} for one in inputs]

    assert gives_raw_masks(model)
    assert not gives_raw_masks(Other())
    assert detect(Other(), [sample(5, 9, 9)]) == [{"mine": 5}]


def test_the_model_is_left_in_the_mode_that_it_was_in(model):
    model.train()
    run_inference(model, BATCHES[:1], Keeping())
    assert model.training
    model.eval()
    run_inference(model, BATCHES[:1], Keeping())
    assert not model.training

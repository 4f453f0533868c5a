"""What a step draws follows from seed, iteration and image, and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.loader import share_positions
from mask_rcnn_ext.modeling.rpn import MaskRCNNRPN
from mask_rcnn_ext.modeling.sampling import ANCHORS, PROPOSALS, draws, each_image, next_image

CPU = torch.device("cpu")
CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


def numbers(images: int, sampler: int = ANCHORS) -> list[int]:
    """What a sampler would draw, an image each."""
    found = []
    with each_image(sampler, images):
        for _ in range(images):
            with next_image(CPU):
                found.append(int(torch.randint(2**60, ())))
    return found


@settings(deadline=None, max_examples=20)
@given(total=st.integers(1, 12), world=st.integers(1, 5), sampler=st.sampled_from([0, 1]))
def test_any_number_of_processes_draws_the_same(total, world, sampler):
    with draws(1, 2, range(total)):
        whole = numbers(total, sampler)
    for rank in range(world):
        positions = share_positions(total, rank, world)
        with draws(1, 2, positions):
            assert numbers(len(positions), sampler) == whole[rank::world]


def test_seed_iteration_image_and_sampler_each_count():
    found = set()
    for seed in (0, 1, 2**40):
        for iteration in (0, 1):
            with draws(seed, iteration, [0, 1]):
                found |= {*numbers(2, ANCHORS), *numbers(2, PROPOSALS)}
    assert len(found) == 3 * 2 * 2 * 2


def test_the_global_generator_goes_on_as_if_nothing_was_drawn():
    before = torch.get_rng_state()
    with draws(1, 2, [0, 1]):
        numbers(2)
        assert torch.equal(torch.get_rng_state(), before)
        with pytest.raises(KeyError), each_image(ANCHORS, 2), next_image(CPU):
            torch.rand(())
            raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_outside_the_global_generator_is_the_one():
    torch.manual_seed(4)
    expected = [int(torch.randint(2**60, ())) for _ in range(3)]
    torch.manual_seed(4)
    with draws(1, 2, [0]):
        pass
    assert numbers(3) == expected
    torch.manual_seed(4)
    with draws(1, 2, [0]):
        numbers(1)
    with next_image(CPU):  # no sampler is at work
        assert int(torch.randint(2**60, ())) == expected[0]


def test_the_inner_one_counts_until_it_ends():
    with draws(1, 2, [0]):
        outer = numbers(1)
        with draws(1, 3, [0]):
            assert numbers(1) != outer
        assert numbers(1) == outer


def test_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match=r"seed=-1.*0 or more"), draws(-1, 0, [0]):
        pass
    with pytest.raises(ValueError, match=r"positions=\(0, -2\)"), draws(1, 0, [0, -2]):
        pass
    with draws(1, 0, [0]), pytest.raises(ValueError, match="1 positions for a batch of 2"):
        numbers(2)
    here, there = each_image(ANCHORS, 1), next_image(torch.device("meta"))
    with draws(1, 0, [0]), here, pytest.raises(ValueError, match="got meta"), there:
        pass


@pytest.mark.gpu
def test_a_gpu_draws_the_same_again():
    device = torch.device("cuda")
    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state()
    found = []
    for _ in range(2):
        with draws(1, 2, [0]), each_image(ANCHORS, 1), next_image(device):
            found.append(torch.randperm(1000, device=device))
    assert torch.equal(*found)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8"])
    return build_model(cfg)


def _truth(place: float) -> Instances:
    truth = Instances((64, 64))
    truth.gt_boxes = Boxes(torch.tensor([[5.0, 5.0, 30.0, 30.0]]) + place)
    truth.gt_classes = torch.tensor([1])
    return truth


def _sample(model: torch.nn.Module, places: list[float]) -> list[tuple[list, list]]:
    """The anchors and the proposals that each image is trained on; all images have the same."""
    rpn, heads = model.proposal_generator, model.roi_heads
    anchors = rpn.anchor_generator([torch.zeros(1, 1, s, s) for s in (16, 8, 4, 2)])
    boxes = Boxes(torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) * 30)
    boxes.tensor[:, 2:] += 31
    truths = [_truth(place) for place in places]
    proposals = [
        Instances((64, 64), proposal_boxes=boxes, objectness_logits=torch.zeros(60))
    ] * len(places)
    with EventStorage():
        labels, _ = rpn.label_and_sample_anchors(anchors, truths)
        sampled = heads.label_and_sample_proposals(proposals, truths)
    return [
        (one.tolist(), two.proposal_boxes.tensor.tolist())
        for one, two in zip(labels, sampled, strict=True)
    ]


def test_a_models_samples_belong_to_the_image(model):
    places = [0.0, 1.0, 2.0, 0.0]
    with draws(1, 2, range(4)):
        whole = _sample(model, places)
    torch.manual_seed(9)
    with draws(1, 2, [1, 3]):
        assert _sample(model, places[1::2]) == whole[1::2]
    assert whole[0][0] != whole[3][0]  # the same picture at another position
    assert whole[0][1] != whole[3][1]
    with draws(1, 3, range(4)):
        again = _sample(model, places)
    assert all(a[0] != w[0] and a[1] != w[1] for a, w in zip(again, whole, strict=True))


def test_without_draws_the_samples_are_detectron2s(model, monkeypatch):
    assert isinstance(model.proposal_generator, MaskRCNNRPN)
    torch.manual_seed(3)
    ours = _sample(model, [0.0, 1.0])
    after = torch.get_rng_state()
    for ours_class, theirs in ((MaskRCNNRPN, RPN), (type(model.roi_heads), StandardROIHeads)):
        for name in ("label_and_sample_anchors", "_subsample_labels") + (
            "label_and_sample_proposals",
            "_sample_proposals",
        ):
            if hasattr(theirs, name):
                monkeypatch.setattr(ours_class, name, getattr(theirs, name), raising=False)
    torch.manual_seed(3)
    assert _sample(model, [0.0, 1.0]) == ours
    assert torch.equal(torch.get_rng_state(), after)

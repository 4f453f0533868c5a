"""Augmentations: with Detectron2's keys they are Detectron2's; ours where a key asks for more."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances, Keypoints
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as vF

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.augmentations.build import build_augmentations, build_copy_paste
from mask_rcnn_ext.data.augmentations.color import ColorJitter, ColorJitterTransform
from mask_rcnn_ext.data.augmentations.copy_paste import CopyPaste
from mask_rcnn_ext.data.augmentations.crop import InstanceCrop
from mask_rcnn_ext.data.augmentations.pad import ColorPadTransform, CropOrPad
from mask_rcnn_ext.data.augmentations.resize import (
    ResizeScale,
    ResizeShortestEdge,
    TensorResizeTransform,
    channels_first,
)
from mask_rcnn_ext.data.input_keys import with_input_keys
from mask_rcnn_ext.data.masks import IndexedBitMasks
from mask_rcnn_ext.errors import UsageError


def config(**keys) -> CfgNode:
    """Defaults with INPUT.<key> changed; "__" is a dot."""
    cfg = with_input_keys(load_config("", ["MODEL.MASK_ON", "True"])).clone()
    cfg.defrost()
    for key, value in keys.items():
        cfg.merge_from_list([f"INPUT.{key.replace('__', '.')}", value])
    return cfg


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 60),
    st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1]), st.sampled_from([1, -1])),
)
def test_our_resize_is_pillows_to_one_level(h, w, new_h, new_w, steps):
    image = picture(h, w)[:: steps[0], :: steps[1], :: steps[2]]
    ours = TensorResizeTransform(h, w, new_h, new_w).apply_image(image)
    theirs = T.ResizeTransform(h, w, new_h, new_w).apply_image(np.ascontiguousarray(image))
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(
    "image",
    [picture(9, 7)[:, :, :1], picture(9, 7)[:, :, 0], picture(9, 7) / 255.0],
    ids=["one channel", "no channel", "float"],
)
def test_all_other_images_take_detectron2s_resize(image):
    ours, theirs = (cls(9, 7, 5, 11) for cls in (TensorResizeTransform, T.ResizeTransform))
    assert np.array_equal(ours.apply_image(image), theirs.apply_image(image))
    nearest = Image.Resampling.NEAREST
    colored = picture(9, 7)
    assert np.array_equal(ours.apply_image(colored, nearest), theirs.apply_image(colored, nearest))


def test_our_resize_is_detectron2s_in_coordinates_and_refuses_other_sizes():
    ours = pickle.loads(pickle.dumps(TensorResizeTransform(9, 7, 5, 11)))
    box = np.array([[1.5, 2, 6, 8]])
    assert np.array_equal(ours.apply_box(box), T.ResizeTransform(9, 7, 5, 11).apply_box(box))
    assert isinstance(ours, T.ResizeTransform)
    with pytest.raises(ValueError, match=r"an image of \(9, 7\) got \(7, 9\)"):
        ours.apply_image(picture(7, 9))


@pytest.mark.parametrize("steps", [(1, 1, 1), (-1, 1, -1), (1, -1, 1), (-1, -1, -1)])
def test_channels_first_of_flipped_views_and_read_only_arrays(steps):
    image = picture(5, 4)
    image.flags.writeable = False
    view = image[:: steps[0], :: steps[1], :: steps[2]]
    assert np.array_equal(channels_first(view).numpy(), view.transpose(2, 0, 1))


KEYS = [
    {},
    {"MIN_SIZE_TRAIN": (20, 30), "MIN_SIZE_TRAIN_SAMPLING": "range", "RANDOM_FLIP": "vertical"},
    {"MIN_SIZE_TRAIN": (20, 25, 30), "MAX_SIZE_TRAIN": 33, "RANDOM_FLIP": "none"},
]


@pytest.mark.parametrize("keys", KEYS, ids=["default", "range", "choice"])
@pytest.mark.parametrize("is_train", [True, False])
def test_detectron2s_keys_draw_as_detectron2_does(keys, is_train):
    cfg = config(**keys)
    ours = T.AugmentationList(build_augmentations(cfg, is_train))
    theirs = T.AugmentationList(utils.build_augmentation(cfg, is_train))
    for seed in range(6):
        inputs = [T.AugInput(picture(40, 50)) for _ in range(2)]
        chains = []
        for augmentations, given_input in zip((ours, theirs), inputs, strict=True):
            np.random.seed(seed)
            chains.append(augmentations(given_input))
        box = np.array([[3.0, 4, 31, 17]])
        assert np.array_equal(chains[0].apply_box(box), chains[1].apply_box(box))
        assert np.abs(inputs[0].image.astype(int) - inputs[1].image).max() <= 1
        assert inputs[0].image.shape == inputs[1].image.shape


def test_everything_new_is_off():
    kinds = [type(one) for one in build_augmentations(config(), True)]
    assert kinds == [ResizeShortestEdge, T.RandomFlip]
    assert build_copy_paste(config(MASK_FORMAT="bitmask"), True) is None


def test_everything_new_can_be_on():
    cfg = config(
        CROP__ENABLED=True, CROP__INSTANCE_AWARE=True, LSJ__ENABLED=True, COLOR_JITTER__HUE=0.1
    )
    kinds = [type(one) for one in build_augmentations(cfg, True)]
    assert kinds == [ColorJitter, InstanceCrop, ResizeScale, CropOrPad, T.RandomFlip]
    assert [type(one) for one in build_augmentations(cfg, False)] == [ResizeShortestEdge]
    plain = build_augmentations(config(CROP__ENABLED=True), True)[0]
    assert type(plain) is T.RandomCrop


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"MIN_SIZE_TRAIN_SAMPLING": "any"}, "MIN_SIZE_TRAIN_SAMPLING is 'any'"),
        ({"MIN_SIZE_TRAIN_SAMPLING": "range"}, "MIN_SIZE_TRAIN is .* expected two values"),
        ({"RANDOM_FLIP": "both"}, "RANDOM_FLIP is 'both'"),
        ({"LSJ__ENABLED": True, "LSJ__MIN_SCALE": 3.0}, "MIN_SCALE is 3.0 and MAX_SCALE 2.0"),
        ({"LSJ__ENABLED": True, "LSJ__SIZE": 0}, "LSJ.SIZE is 0"),
        ({"COLOR_JITTER__HUE": 0.7}, "HUE is 0.7"),
        ({"COLOR_JITTER__CONTRAST": -0.1}, "CONTRAST is -0.1"),
        ({"COLOR_JITTER__CONTRAST": 0.1, "FORMAT": "L"}, "FORMAT is 'L'"),
        ({"COPY_PASTE__PROBABILITY": 1.5}, "PROBABILITY is 1.5"),
        ({"COPY_PASTE__PROBABILITY": 0.5}, "MASK_FORMAT is 'polygon'"),
    ],
)
def test_values_that_cannot_be(keys, says):
    with pytest.raises(UsageError, match=says):
        build_augmentations(config(**keys), True)
        build_copy_paste(config(**keys), True)


def test_large_scale_jitter_gives_one_size_and_pads_with_the_mean():
    cfg = config(LSJ__ENABLED=True, LSJ__SIZE=32, LSJ__MIN_SCALE=0.1, LSJ__MAX_SCALE=2.0)
    jitter = T.AugmentationList(build_augmentations(cfg, True)[:2])
    mean = np.rint(cfg.MODEL.PIXEL_MEAN)
    padded = cropped = 0
    for seed in range(12):
        np.random.seed(seed)
        given_input = T.AugInput(np.full((40, 20, 3), 255, np.uint8))
        chain = jitter(given_input)
        assert given_input.image.shape == (32, 32, 3)
        corners = chain.apply_coords(np.array([[0.0, 0], [20, 40]]))
        if isinstance(chain[-1], ColorPadTransform):
            padded += 1
            right = int(round(min(corners[1, 0], 32)))
            assert (given_input.image[:, right:] == mean).all()
            assert (given_input.image[: int(min(corners[1, 1], 32)), : right - 1] == 255).all()
        cropped += any(isinstance(one, T.CropTransform) for one in chain.transforms)
    assert padded > 3
    assert cropped > 3


def test_a_picture_never_vanishes():
    scale = ResizeScale(0.01, 0.01, 50, 50)
    assert scale.get_transform(picture(200, 2)).apply_image(picture(200, 2)).shape == (1, 1, 3)


def test_crop_or_pad_draws_each_axis_for_itself():
    offsets = set()
    for _ in range(200):
        crop = CropOrPad((4, 4), (0, 0, 0)).get_transform(picture(6, 6))[0]
        offsets.add((crop.x0, crop.y0))
    assert len(offsets) == 9


def test_padding_with_a_colour_of_another_image_is_refused():
    with pytest.raises(ValueError, match="3 channels got an image of shape"):
        ColorPadTransform(0, 0, 1, 1, pad_value=(1, 2, 3)).apply_image(picture(3, 3)[:, :, :1])


def test_the_crop_holds_the_middle_of_an_object():
    boxes = np.array([[2.0, 2, 6, 6], [30, 20, 50, 44], [70, 10, 90, 90], [5, 5, 5, 9]])
    crop = InstanceCrop("absolute", (16, 12))
    image = picture(48, 64)
    hit = set()
    for _ in range(60):
        given_input = T.AugInput(image, boxes=boxes)
        one = crop(given_input)
        assert given_input.image.shape == (16, 12, 3)
        centres = np.array([[4.0, 4], [40, 32]])  # the other two: outside, and without area
        inside = (centres >= (one.x0, one.y0)) & (centres <= (one.x0 + 12, one.y0 + 16))
        assert inside.all(axis=1).any()
        hit |= set(np.flatnonzero(inside.all(axis=1)).tolist())
    assert hit == {0, 1}


@pytest.mark.parametrize("boxes", [None, np.zeros((0, 4))])
def test_the_crop_survives_images_without_objects(boxes):
    given_input = T.AugInput(picture(20, 30), boxes=boxes)
    InstanceCrop("relative", (0.5, 0.5))(given_input)
    assert given_input.image.shape == (10, 15, 3)


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_colours_are_torchvisions(image_format):
    rgb = picture(8, 6)
    steps = (("hue", 0.2), ("saturation", 1.7), ("brightness", 0.6), ("contrast", 1.4))
    expected = torch.from_numpy(rgb).permute(2, 0, 1)
    for name, factor in steps:
        expected = getattr(vF, f"adjust_{name}")(expected, factor)
    given_image = rgb[:, :, ::-1] if image_format == "BGR" else rgb
    changed = ColorJitterTransform(steps, image_format).apply_image(given_image)
    changed = changed[:, :, ::-1] if image_format == "BGR" else changed
    assert np.array_equal(changed, expected.permute(1, 2, 0).numpy())


def test_colour_strengths_bound_what_is_drawn_from_torchs_numbers():
    jitter = pickle.loads(pickle.dumps(ColorJitter(brightness=0.3, hue=0.1)))
    drawn = [dict(jitter.get_transform(picture(2, 2)).steps) for _ in range(30)]
    assert all(set(one) == {"brightness", "hue"} for one in drawn)
    assert all(0.7 <= one["brightness"] <= 1.3 and abs(one["hue"]) <= 0.1 for one in drawn)
    torch.manual_seed(4)
    first = jitter.get_transform(picture(2, 2)).steps
    torch.manual_seed(4)
    assert jitter.get_transform(picture(2, 2)).steps == first


def sample(masks: torch.Tensor, value: int, keypoints: torch.Tensor | None = None) -> dict:
    size = tuple(masks.shape[1:])
    instances = Instances(size, gt_masks=IndexedBitMasks(masks))
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_boxes.tensor += 0.25  # an annotator's box, not the mask's own
    instances.gt_classes = torch.arange(len(masks)) + value
    if keypoints is not None:
        instances.gt_keypoints = Keypoints(keypoints)
    return {"image": torch.full((3, *size), value, dtype=torch.uint8), "instances": instances}


def block(height: int, width: int, *where: tuple[int, int, int, int]) -> torch.Tensor:
    masks = torch.zeros(len(where), height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, where, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


class All(CopyPaste):
    """Pastes all of the partner's objects, by fixing the draws."""

    def __call__(self, own, partner):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np.random, "uniform", lambda size: np.zeros(size))
            return super().__call__(own, partner)


def test_pasted_objects_hide_what_is_behind_them():
    own = sample(block(10, 12, (0, 0, 6, 4), (7, 7, 9, 9), (0, 8, 3, 10)), 10)
    partner = sample(block(9, 20, (4, 0, 8, 9), (15, 0, 18, 3), (7, 7, 9, 9)), 50)
    before = own["instances"].gt_masks.tensor.clone()
    pasted = All(1.0)(own, partner)
    instances = pasted["instances"]
    # own 0 is cut, own 1 is hidden, own 2 untouched; of the partner, 1 lies outside of this picture
    assert instances.gt_classes.tolist() == [10, 12, 50, 52]
    assert torch.equal(
        instances.gt_masks.tensor,
        block(10, 12, (0, 0, 4, 4), (0, 8, 3, 10), (4, 0, 8, 9), (7, 7, 9, 9)),
    )
    assert instances.gt_boxes.tensor.tolist() == [
        [0, 0, 4, 4],
        [0.25, 8.25, 3.25, 10.25],
        [4.25, 0.25, 8.25, 9.25],
        [7.25, 7.25, 9.25, 9.25],
    ]
    covered = instances.gt_masks.tensor[2:].any(0)
    assert (pasted["image"][:, covered] == 50).all()
    assert (pasted["image"][:, ~covered] == 10).all()
    assert (own["image"] == 10).all()  # neither sample is changed
    assert torch.equal(own["instances"].gt_masks.tensor, before)
    assert instances.image_size == (10, 12)


def test_an_object_at_the_edge_is_cut_off_there():
    own, partner = sample(block(10, 10), 1), sample(block(10, 30, (6, 2, 20, 4)), 2)
    instances = All(1.0)(own, partner)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[6, 2, 10, 4]]


def test_hidden_keypoints_are_labelled_but_not_visible():
    points = torch.tensor([[[1.0, 1, 2], [5, 1, 2], [0, 0, 0]]])
    own = sample(block(10, 10, (0, 0, 7, 3)), 1, points)
    theirs = torch.tensor([[[5.0, 1, 2], [12, 1, 2], [5, 2, 1]]])
    partner = sample(block(10, 20, (4, 0, 14, 4)), 2, theirs)
    keypoints = All(1.0)(own, partner)["instances"].gt_keypoints.tensor
    assert keypoints[0].tolist() == [[1, 1, 2], [5, 1, 1], [0, 0, 0]]
    assert keypoints[1].tolist() == [[5, 1, 2], [0, 0, 0], [5, 2, 1]]


def test_nothing_chosen_and_limits():
    own = sample(block(8, 8), 1)
    partner = sample(block(8, 8, *[(i, 0, i + 1, 3) for i in range(8)]), 2)
    counts = {len(CopyPaste(1.0)(own, partner)["instances"]) for _ in range(30)}
    assert len(counts) > 2
    assert max(len(CopyPaste(1.0, 2)(own, partner)["instances"]) for _ in range(30)) == 2
    assert CopyPaste(1.0)(own, own) is own
    assert sum(CopyPaste(0.25).wanted() for _ in range(400)) in range(60, 140)


def test_semantic_labels_are_pasted_too():
    own, partner = sample(block(4, 4), 1), sample(block(4, 4, (0, 0, 2, 2)), 2)
    own["sem_seg"], partner["sem_seg"] = torch.zeros(4, 4), torch.ones(4, 4)
    assert All(1.0)(own, partner)["sem_seg"].sum() == 4


def test_copy_paste_needs_bitmasks():
    bare = {"image": torch.zeros(3, 4, 4), "instances": Instances((4, 4), gt_boxes=Boxes([]))}
    with pytest.raises(ValueError, match="INPUT.MASK_FORMAT"):
        CopyPaste(1.0)(bare, bare)
    with pytest.raises(ValueError, match="probability=2"):
        CopyPaste(2)

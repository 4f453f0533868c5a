"""Masks come out as Detectron2 and pycocotools make them, bit for bit; indexing copies nothing."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances, polygons_to_bitmask
from fvcore.transforms.transform import Transform
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.augmentations.color import ColorJitterTransform
from mask_rcnn_ext.data.augmentations.pad import ColorPadTransform
from mask_rcnn_ext.data.augmentations.resize import TensorResizeTransform
from mask_rcnn_ext.data.axis_maps import axis_maps
from mask_rcnn_ext.data.mask_windows import Window, WindowMaker, rasterise, run_lengths
from mask_rcnn_ext.data.masks import IndexedBitMasks, bit_masks

side = st.integers(1, 40)


@st.composite
def chains(draw, *, crops: bool = True) -> tuple[int, int, list[Transform]]:
    """Height and width of a source image and up to four transforms that follow one another."""
    height, width = h, w = draw(side), draw(side)
    transforms: list[Transform] = []
    kinds = ["resize", "ours", "hflip", "vflip", "pad", "color pad", "none", "color"]
    for kind in draw(st.lists(st.sampled_from(kinds + ["crop"] * crops), max_size=4)):
        if kind in ("resize", "ours"):
            new_h, new_w = draw(side), draw(side)
            make = T.ResizeTransform if kind == "resize" else TensorResizeTransform
            transforms.append(make(h, w, new_h, new_w))
            h, w = new_h, new_w
        elif kind in ("hflip", "vflip"):
            transforms.append(T.HFlipTransform(w) if kind == "hflip" else T.VFlipTransform(h))
        elif kind == "crop":
            y0, x0 = draw(st.integers(0, h - 1)), draw(st.integers(0, w - 1))
            new_h, new_w = draw(side), draw(side)  # may reach over the edge, as slices do
            transforms.append(T.CropTransform(x0, y0, new_w, new_h))
            h, w = min(new_h, h - y0), min(new_w, w - x0)
        elif kind in ("pad", "color pad"):
            x0, y0, x1, y1 = (draw(st.integers(0, 5)) for _ in range(4))
            make = T.PadTransform if kind == "pad" else ColorPadTransform
            transforms.append(make(x0, y0, x1, y1))
            h, w = h + y0 + y1, w + x0 + x1
        elif kind == "color":
            transforms.append(ColorJitterTransform((("brightness", 0.5),), "BGR"))
        else:
            transforms.append(T.NoOpTransform())
    return height, width, transforms


def bits(height: int, width: int, seed: int, share: float = 0.5) -> np.ndarray:
    """Blocks of random bits, so that runs are longer than one."""
    random = np.random.default_rng(seed)
    small = random.random((height // 3 + 1, width // 3 + 1)) < share
    return small.repeat(3, 0).repeat(3, 1)[:height, :width]


def encode(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def as_list(rle: dict) -> dict:
    mask = coco_mask.decode(rle).ravel(order="F")
    changes = np.flatnonzero(np.diff(mask, prepend=0)).tolist()
    return {"size": rle["size"], "counts": np.diff([0, *changes, len(mask)]).tolist()}


def put(window: Window, shape: tuple[int, int]) -> np.ndarray:
    return bit_masks([window], *shape).tensor[0].numpy()


def detectron2_mask(segmentation, transforms: T.TransformList, shape: tuple[int, int]):
    """(H, W) bool, what Detectron2's mapper makes of it with INPUT.MASK_FORMAT bitmask."""
    annotation = {"bbox": [0, 0, 1, 1], "bbox_mode": 0, "category_id": 0}
    annotation["segmentation"] = segmentation
    moved = utils.transform_instance_annotations(annotation, transforms, shape)
    if isinstance(moved["segmentation"], np.ndarray):
        # Detectron2 itself fails on a flipped mask that is one pixel wide: a negative stride.
        moved["segmentation"] = moved["segmentation"].copy()
    return utils.annotations_to_instances([moved], shape, "bitmask").gt_masks.tensor[0].numpy()


@settings(deadline=None, max_examples=150)
@given(chains(), st.integers(0, 1000), st.sampled_from(["bytes", "text", "list"]))
def test_rle_of_any_form_goes_through_transforms_as_in_detectron2(chain, seed, form):
    height, width, chain = chain
    transforms = T.TransformList(chain)
    mask = bits(height, width, seed, share=(seed % 5) / 4)
    shape = transforms.apply_segmentation(mask.astype(np.uint8)).shape
    rle = encode(mask)
    given_form = {
        "bytes": rle,
        "text": rle | {"counts": rle["counts"].decode()},
        "list": as_list(rle),
    }[form]
    maker = WindowMaker(transforms, (height, width), shape)
    assert np.array_equal(put(maker(given_form), shape), detectron2_mask(rle, transforms, shape))


# A grid of tenths has many coordinates half-way between two of pycocotools' fifths.
coordinate = st.one_of(st.integers(-150, 550).map(lambda v: v / 10), st.floats(-20, 60))
polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9).map(
    lambda points: [float(v) for point in points for v in point]
)


@settings(deadline=None, max_examples=150)
@given(chains(crops=False), st.lists(polygon, min_size=1, max_size=3))
def test_polygons_go_through_transforms_as_in_detectron2(chain, polygons):
    height, width, chain = chain
    transforms = T.TransformList(chain)
    shape = transforms.apply_segmentation(np.zeros((height, width), np.uint8)).shape
    ours = put(WindowMaker(transforms, (height, width), shape)(polygons), shape)
    theirs = detectron2_mask(polygons, transforms, shape)
    # What lies outside of the source does not come into view in padding.
    maps = axis_maps(chain, height, width)
    theirs &= (maps.rows >= 0)[:, None] & (maps.columns >= 0)
    assert np.array_equal(ours, theirs)


@settings(deadline=None, max_examples=150)
@given(side, side, st.lists(polygon, min_size=1, max_size=3))
def test_windows_are_drawn_as_whole_frames(height, width, polygons):
    arrays = [np.array(one).reshape(-1, 2) for one in polygons]
    window = rasterise(arrays, height, width)
    whole = polygons_to_bitmask([np.array(one) for one in polygons], height, width)
    assert np.array_equal(put(window, (height, width)), whole)


def test_a_crop_cuts_the_mask_not_the_polygon():
    bow_tie = [5.0, 5, 35, 25, 35, 5, 5, 25]  # shapely's repair of it would lose one half
    crop = T.TransformList([T.CropTransform(3, 2, 20, 25)])
    window = WindowMaker(crop, (30, 40), (25, 20))([bow_tie])
    whole = polygons_to_bitmask([np.array(bow_tie)], 30, 40)
    assert whole[2:27, 3:23].any()
    assert np.array_equal(put(window, (25, 20)), whole[2:27, 3:23])


def test_what_a_crop_cut_off_stays_away_from_padding_after_it():
    square = [2.0, 2, 18, 2, 18, 18, 2, 18]
    transforms = T.TransformList([T.CropTransform(0, 0, 10, 20), T.PadTransform(0, 0, 10, 0)])
    mask = put(WindowMaker(transforms, (20, 20), (20, 20))([square]), (20, 20))
    assert mask[5, 2:10].all()
    assert not mask[:, 10:].any()


class Turn(Transform):
    """A transform that is none of those with axis maps."""

    def apply_image(self, img):
        return np.rot90(img)

    def apply_coords(self, coords):
        return coords[:, ::-1]


def test_a_transform_of_ones_own_gets_the_whole_mask():
    mask = bits(12, 7, 1)
    transforms = T.TransformList([Turn()])
    assert axis_maps(transforms.transforms, 12, 7) is None
    window = WindowMaker(transforms, (12, 7), (7, 12))(encode(mask))
    assert np.array_equal(put(window, (7, 12)), np.rot90(mask))
    triangle = [1.0, 1, 6, 1, 6, 11]
    swapped = [1.0, 1, 1, 6, 11, 6]
    window = WindowMaker(transforms, (12, 7), (7, 12))([triangle])
    assert np.array_equal(put(window, (7, 12)), polygons_to_bitmask([np.array(swapped)], 7, 12))


def test_holes_in_rle_stay():
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    maker = WindowMaker(T.TransformList([T.NoOpTransform()]), (9, 9), (9, 9))
    assert np.array_equal(put(maker(encode(ring)), (9, 9)), ring)


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [5, 9], "counts": [45]}, r"size \[5, 9\], its image \[4, 6\]"),
        ({"size": [4, 6], "counts": [3, 4]}, "counts 7 pixels, its image has 4 x 6 = 24"),
        ({"size": [4, 6], "counts": [30, -6]}, "counts are damaged"),
        ({"size": [4, 6], "counts": "12"}, "damaged"),
        ({"size": [4, 6], "counts": ""}, "damaged"),
        ({"size": [4, 6], "counts": "~~~"}, "not COCO's compressed text"),
        ({"size": [4, 6], "counts": "P" * 40}, "not COCO's compressed text"),
        ({"size": [4, 6], "counts": None}, "expected text or whole numbers"),
        ({"size": [4, 6], "counts": [1.5]}, "expected text or whole numbers"),
        ({"size": [4, 6]}, "expected size and counts"),
        ({"size": 4, "counts": [24]}, "its RLE has the size 4"),
        ([1, 1, 4, 1, 4, 4], "flat list of numbers"),
        ([], "empty list"),
        ([[1, 1, 4, 4]], "polygon of 4 numbers"),
        ([[1, 1, 4, 4, 2, 3, 9]], "polygon of 7 numbers"),
        ([[1, 1, 4, 1, float("nan"), 4]], "coordinate nan"),
        ([[1, 1, 4, 1, 1e30, 4]], "coordinate 1e"),
        ("mask.png", "its segmentation is 'mask.png'"),
        (None, "its segmentation is None"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(segmentation, says):
    maker = WindowMaker(T.TransformList([T.NoOpTransform()]), (4, 6), (4, 6))
    with pytest.raises(ValueError, match=says):
        maker(segmentation)


@settings(deadline=None)
@given(side, side, st.integers(0, 10**6))
def test_runs_are_read_as_pycocotools_writes_them(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < (seed % 7) / 6
    rle = encode(mask)
    assert run_lengths(rle, (height, width)).tolist() == as_list(rle)["counts"]


@pytest.fixture
def pair() -> tuple[IndexedBitMasks, BitMasks]:
    """The same five masks in both classes; one is empty."""
    masks = torch.from_numpy(np.stack([bits(20, 30, i, 0.4) for i in range(5)]))
    masks[3] = False
    return IndexedBitMasks(masks), BitMasks(masks.clone())


INDICES = [
    2,
    -1,
    slice(1, 4),
    slice(0, 0),
    [0, 0, 4],
    torch.tensor([4, 3, 3, 0, 1, 1]),
    torch.tensor([], dtype=torch.int64),
    torch.tensor([True, False, False, True, True]),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexed_masks_are_bit_masks_in_all_they_say(pair, index):
    ours, theirs = (masks[index] for masks in pair)
    ours = pickle.loads(pickle.dumps(ours))
    assert isinstance(ours, BitMasks)
    assert len(ours) == len(theirs)
    assert ours.image_size == theirs.image_size
    assert torch.equal(ours.tensor, theirs.tensor)
    assert torch.equal(ours.nonempty(), theirs.nonempty())
    assert torch.equal(ours.area(), theirs.tensor.flatten(1).sum(1))
    assert torch.equal(ours.get_bounding_boxes().tensor, theirs.get_bounding_boxes().tensor)
    assert [m.sum() for m in ours] == [m.sum() for m in theirs]
    assert torch.equal(ours.to("cpu").tensor, theirs.tensor)
    boxes = torch.rand(len(theirs), 4) * torch.tensor([15.0, 10, 15, 10])
    boxes[:, 2:] += boxes[:, :2] + 0.5
    cropped = ours.crop_and_resize(boxes, 7)
    assert cropped.dtype == torch.bool
    assert torch.equal(cropped, theirs.crop_and_resize(boxes, 7))


def test_an_index_of_an_index_shares_the_masks(pair):
    masks = pair[0]
    twice = masks[torch.tensor([4, 0, 0, 2])][torch.tensor([False, True, True, True])][[2, 0]]
    assert torch.equal(twice.tensor, pair[1].tensor[[2, 0]])
    assert twice.stored is masks.stored
    with pytest.raises(IndexError):
        twice[torch.tensor([2])]
    with pytest.raises(ValueError, match="expected a vector"):
        masks[torch.zeros(2, 2, dtype=torch.int64)]
    with pytest.raises(ValueError, match="5 masks got 2 boxes"):
        masks.crop_and_resize(torch.zeros(2, 4), 7)


def test_joined_masks(pair):
    masks, plain = pair
    other = IndexedBitMasks(torch.ones(2, 20, 30, dtype=torch.bool))
    parts = [masks[[1, 1]], other[[1]], masks[[4]]]
    joined = IndexedBitMasks.cat(parts)
    assert torch.equal(joined.tensor, torch.cat([part.tensor for part in parts]))
    assert len(joined.stored) == 7  # the shared masks once
    assert IndexedBitMasks.cat([masks[[1]], masks[[2]]]).stored is masks.stored
    assert torch.equal(IndexedBitMasks.cat([masks, plain]).tensor, torch.cat([plain.tensor] * 2))


def test_as_a_field_of_instances(pair):
    instances = Instances((20, 30), gt_masks=pair[0], gt_boxes=Boxes(torch.zeros(5, 4)))
    joined = Instances.cat([instances[torch.tensor([1, 1])].to("cpu"), instances[3]])
    assert torch.equal(joined.gt_masks.tensor, pair[1].tensor[[1, 1, 3]])


def test_no_masks_have_the_size_of_the_image():
    none = bit_masks([], 6, 8)
    assert none.tensor.shape == (0, 6, 8)
    assert none.tensor.dtype == torch.bool
    assert none.get_bounding_boxes().tensor.shape == (0, 4)
    assert none.crop_and_resize(torch.zeros(0, 4), 5).shape == (0, 5, 5)

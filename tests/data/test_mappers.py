"""The mappers make Detectron2's samples; errors name file, image id and annotation id."""

from __future__ import annotations

import copy
import io
import logging
import pickle

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, PolygonMasks
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.input_keys import with_input_keys
from mask_rcnn_ext.data.mappers import (
    MAPPER_REGISTRY,
    CityscapesMapper,
    CocoMapper,
    KeypointMapper,
    build_mapper,
)
from mask_rcnn_ext.data.mappers.images import read_image
from mask_rcnn_ext.errors import DataError, UsageError

OPTS = ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask", "INPUT.MIN_SIZE_TRAIN", "(64,)"]


def config(*opts: str, **keys) -> CfgNode:
    """OPTS and `opts`, and INPUT.<key>s of ours."""
    cfg = with_input_keys(load_config("", [*OPTS, *opts])).clone()
    cfg.defrost()
    for key, value in keys.items():
        cfg.merge_from_list([f"INPUT.{key.replace('__', '.')}", value])
    return cfg


@pytest.fixture
def mapper() -> CocoMapper:
    return CocoMapper(load_config("", OPTS), is_train=True)


@pytest.fixture
def record(tmp_path) -> dict:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    return {"file_name": str(tmp_path / "a.png"), "image_id": 77, "height": 20, "width": 30}


def annotation(segmentation=None, **more) -> dict:
    """An object of class 3 in the box x 5 to 15, y 4 to 12."""
    result = {"id": 901, "iscrowd": 0, "bbox": [5.0, 4.0, 10.0, 8.0], "bbox_mode": 1}
    result |= {"category_id": 3, "segmentation": [[5.0, 4, 15, 4, 15, 12, 5, 12]]}
    if segmentation is not None:
        result["segmentation"] = segmentation
    return result | more


def rle(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def both(cfg: CfgNode, entry: dict, seed: int) -> list[dict]:
    samples = []
    for kind in (CocoMapper, DatasetMapper):
        np.random.seed(seed)
        samples.append(kind(cfg, is_train=True)(copy.deepcopy(entry)))
    return samples


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
def test_same_sample_as_detectron2(scenes, mask_format):
    cfg = load_config("", [*OPTS, "INPUT.MASK_FORMAT", mask_format])
    compared = 0
    for number, entry in enumerate(DatasetCatalog.get("scenes_train")):
        if mask_format == "polygon":
            for one in entry["annotations"]:  # scenes have RLE
                x, y, w, h = one["bbox"]
                diamond = [x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]
                one["segmentation"] = [diamond, [x, y, x + w / 3, y, x, y + h / 3]]
        ours, theirs = both(cfg, entry, number)
        assert ours.keys() == theirs.keys()
        assert (ours["image"].int() - theirs["image"].int()).abs().max() <= 1
        ours, theirs = ours["instances"], theirs["instances"]
        assert ours.image_size == theirs.image_size
        assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)
        assert torch.equal(ours.gt_classes, theirs.gt_classes)
        if not len(ours):
            continue
        compared += len(ours)
        if mask_format == "bitmask":
            assert torch.equal(ours.gt_masks.tensor, theirs.gt_masks.tensor)
        else:
            for mine, other in zip(ours.gt_masks, theirs.gt_masks, strict=True):
                assert all(map(np.array_equal, mine, other))
    assert compared


def test_same_sample_of_real_images(coco_images):
    cfg = load_config("", ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask"])
    entries = [e for e in DatasetCatalog.get("coco_2017_val") if e["annotations"]]
    for number, entry in enumerate(entries[:12]):
        ours, theirs = both(cfg, entry, number)
        assert (ours["image"].int() - theirs["image"].int()).abs().max() <= 1
        ours, theirs = ours["instances"], theirs["instances"]
        assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)
        assert torch.equal(ours.gt_masks.tensor, theirs.gt_masks.tensor)


def test_augmentations_of_ones_own(record):
    class Darker(T.Augmentation):
        def get_transform(self, image):
            return T.ColorTransform(lambda pixels: pixels // 2)

    record["annotations"] = [annotation()]
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(record["file_name"])
    augmentations = [T.Resize((40, 90)), Darker(), T.RandomRotation(90), T.HFlipTransform(40)]
    made = [
        kind(
            is_train=True,
            augmentations=augmentations,
            image_format="BGR",
            use_instance_mask=True,
            instance_mask_format="bitmask",
        )(copy.deepcopy(record))
        for kind in (CocoMapper, DatasetMapper)
    ]
    assert (made[0]["image"] == 100).all()
    assert torch.equal(made[0]["image"], made[1]["image"])
    assert torch.equal(made[0]["instances"].gt_masks.tensor, made[1]["instances"].gt_masks.tensor)
    assert made[0]["instances"].gt_masks.tensor.any()


def test_a_bug_in_ones_own_augmentation_keeps_its_traceback(record):
    class Broken(T.Augmentation):
        def get_transform(self, image):
            raise TypeError("of the user's own")

    with pytest.raises(TypeError, match="of the user's own"):
        CocoMapper(is_train=True, augmentations=[Broken()], image_format="BGR")(record)


def test_the_record_stays_as_it_was_and_its_keys_go_through(mapper, record):
    record |= {"annotations": [annotation(), annotation(iscrowd=1)], "note": "mine"}
    before = copy.deepcopy(record)
    sample = mapper(record)
    assert record == before
    assert sample["note"] == "mine"
    assert "annotations" not in sample
    assert len(sample["instances"]) == 1  # crowds are no instances


def test_in_inference_there_are_no_instances(record):
    record["annotations"] = [annotation("nonsense")]
    sample = pickle.loads(pickle.dumps(CocoMapper(load_config("", OPTS), is_train=False)))(record)
    assert "instances" not in sample
    assert "annotations" not in sample
    assert sample["image"].shape == (3, 800, 1200)


def forms(mask: np.ndarray) -> dict[str, dict]:
    compressed = rle(mask)
    flat = mask.ravel(order="F").astype(int)
    counts = np.diff([0, *np.flatnonzero(np.diff(flat, prepend=0)).tolist(), flat.size]).tolist()
    return {
        "bytes": compressed,
        "text": compressed | {"counts": compressed["counts"].decode()},
        "list": {"size": list(mask.shape), "counts": counts},
    }


def test_all_mask_forms_in_one_file(mapper, record):
    mask = np.zeros((20, 30), bool)
    mask[4:12, 5:15] = True
    segmentations = [[[5.0, 4, 15, 4, 15, 12, 5, 12]], *forms(mask).values()]
    record["annotations"] = [annotation(one) for one in segmentations]
    masks = mapper(record)["instances"].gt_masks
    assert isinstance(masks, BitMasks)
    assert len(masks) == 4
    assert all(torch.equal(masks.tensor[1], one) for one in masks.tensor[2:])
    assert (masks.tensor[0] != masks.tensor[1]).float().mean() < 0.01


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
@pytest.mark.parametrize("crop", [True, False])
def test_an_image_without_objects(record, mask_format, crop):
    cfg = config("INPUT.CROP.ENABLED", str(crop), CROP__INSTANCE_AWARE=crop)
    cfg.INPUT.MASK_FORMAT = mask_format
    for present in ([], [annotation(iscrowd=1)]):
        record["annotations"] = present
        instances = CocoMapper(cfg, is_train=True)(record)["instances"]
        assert len(instances) == 0
        assert instances.gt_boxes.tensor.shape == (0, 4)
        assert instances.gt_classes.dtype == torch.int64
        assert isinstance(
            instances.gt_masks, BitMasks if mask_format == "bitmask" else PolygonMasks
        )
        assert len(instances.gt_masks) == 0


def test_boxes_are_the_masks_after_a_crop(record):
    cfg = config("INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "relative")
    triangle = annotation([[0.0, 0, 30, 0, 0, 20]], bbox=[0.0, 0, 30, 20])
    record["annotations"] = [triangle]
    instances = CocoMapper(cfg, is_train=True)(record)["instances"]
    assert torch.equal(instances.gt_boxes.tensor, instances.gt_masks.get_bounding_boxes().tensor)
    assert not torch.equal(instances.gt_boxes.tensor[0], torch.tensor([0.0, 0, 63, 64]))


def test_large_scale_jitter_end_to_end(record):
    record["annotations"] = [annotation()]
    cfg = config(LSJ__ENABLED=True, LSJ__SIZE=48, LSJ__MIN_SCALE=0.5, LSJ__MAX_SCALE=0.5)
    sample = CocoMapper(cfg, is_train=True)(record)
    assert sample["image"].shape == (3, 48, 48)
    mask = sample["instances"].gt_masks.tensor[0]
    assert mask.any()
    assert not mask[17:].any()  # a picture of 20 x 30 fits 24 x 24 as 16 x 24; the rest is padding
    assert sample["instances"].image_size == (48, 48)


def test_what_resizing_loses_is_said(mapper, record, caplog):
    record["annotations"] = [annotation(), annotation([[40.0, 4, 45, 4, 45, 9]])]
    with caplog.at_level(logging.WARNING):
        assert len(mapper(record)["instances"]) == 1
    assert "covers no pixel" in caplog.text
    assert "1 of image" in caplog.text
    assert "(image id 77)" in caplog.text


def test_missing_image(mapper, record, tmp_path):
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png \(image id 77\) does not exist"):
        mapper(record)


@pytest.mark.parametrize("content", [b"", b"not a picture", None], ids=["empty", "text", "cut"])
def test_image_that_does_not_decode(mapper, record, tmp_path, content):
    path = tmp_path / "a.png"
    noise = np.random.randint(0, 255, (20, 30, 3)).astype(np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=r"a\.png \(image id 77\) does not decode"):
        mapper(record)


def test_image_of_another_size(mapper, record):
    record["width"] = 31
    with pytest.raises(DataError, match=r"\(image id 77\).*EXIF"):
        mapper(record)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"segmentation": "nonsense"}, "its segmentation is 'nonsense'"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, r"\[9, 9\], its image \[20, 30\]"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "flat list"),
        ({"bbox": [1, 2, 3]}, "its box .* cannot be used"),
        ({"bbox": None}, "its box None"),
        ({"bbox": [1.0, 2, float("nan"), 4]}, "expected finite numbers"),
        ({"bbox_mode": 77}, "with mode 77"),
        ({"category_id": "cat"}, "its category_id is 'cat'"),
    ],
)
def test_an_unusable_annotation_is_named(mapper, record, broken, says):
    record["annotations"] = [annotation(), annotation() | {"id": 902} | broken]
    with pytest.raises(DataError, match=rf"\(image id 77\), annotation id 902: .*{says}"):
        mapper(record)


def test_annotations_without_an_id_and_without_a_mask(mapper, record):
    one = annotation()
    del one["id"], one["segmentation"]
    record["annotations"] = [annotation(), one]
    with pytest.raises(DataError, match=r"annotation number 1 of the image.*has no segmentation"):
        mapper(record)


def test_polygons_cannot_hold_rle(record):
    mapper = CocoMapper(load_config("", [*OPTS, "INPUT.MASK_FORMAT", "polygon"]), is_train=True)
    record["annotations"] = [annotation(rle(np.ones((20, 30))))]
    with pytest.raises(DataError, match="annotation id 901: .*set INPUT.MASK_FORMAT bitmask"):
        mapper(record)


def test_the_message_survives_the_way_out_of_a_worker(mapper, record, tmp_path):
    (tmp_path / "a.png").unlink()
    loader = torch.utils.data.DataLoader(_Records(mapper, record), num_workers=1)
    with pytest.raises(DataError) as caught:
        next(iter(loader))
    message = str(caught.value)
    assert message.startswith(f"image {tmp_path}/a.png (image id 77) does not exist")
    assert "Traceback" not in message


class _Records(torch.utils.data.Dataset):
    def __init__(self, mapper: CocoMapper, record: dict):
        self.mapper, self.record = mapper, record

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        return self.mapper(self.record)


def _files() -> dict[str, bytes]:
    """Encoded pictures of 12 x 9 of many kinds."""
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (12, 9, 3), dtype=np.uint8))
    files = {}

    def save(name: str, image: Image.Image, kind: str, **more) -> None:
        with io.BytesIO() as file:
            image.save(file, kind, **more)
            files[name] = file.getvalue()

    save("jpeg", rgb, "JPEG")
    save("progressive jpeg", rgb, "JPEG", progressive=True, subsampling=0)
    save("gray jpeg", rgb.convert("L"), "JPEG")
    save("cmyk jpeg", rgb.convert("CMYK"), "JPEG")
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[274] = orientation
        save(f"jpeg of orientation {orientation}", rgb, "JPEG", exif=exif)
    save("jpeg with broken exif", rgb, "JPEG", exif=b"Exif\x00\x00nonsense")
    save("png", rgb, "PNG")
    save("rgba", rgb.convert("RGBA"), "PNG")
    save("palette", rgb.convert("P"), "PNG")
    save("16 bit", Image.fromarray(random.integers(0, 65536, (12, 9), dtype=np.uint16)), "PNG")
    return files


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
@pytest.mark.parametrize("kind", _files())
def test_files_are_read_as_detectron2_reads_them(tmp_path, kind, image_format):
    path = tmp_path / "picture"
    path.write_bytes(_files()[kind])
    ours = read_image(str(path), image_format)
    theirs = utils.read_image(str(path), image_format)
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


def test_jpegs_take_the_fast_way_and_no_others(tmp_path, monkeypatch):
    taken = []

    def decode(data, flags):
        taken.append(data.tobytes())
        raise cv2.error("an OpenCV that cannot read this one")

    path = tmp_path / "picture"
    monkeypatch.setattr(cv2, "imdecode", decode)
    files = _files()
    for content in files.values():
        path.write_bytes(content)
        read_image(str(path), "RGB")  # Pillow does it
    fast = ["jpeg", "progressive jpeg", "gray jpeg", "jpeg of orientation 1"]
    assert taken == [files[kind] for kind in [*fast, "jpeg with broken exif"]]


@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "gray jpeg"])
def test_every_cut_of_a_jpeg_is_noticed(tmp_path, kind, monkeypatch):
    # Older versions of OpenCV fill cut files with gray, so it must not get any.
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((12, 9, 3), np.uint8))
    path = tmp_path / "picture"
    whole = _files()[kind]
    for end in range(2, len(whole) - 2, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(OSError):  # noqa: PT011  # which one is Pillow's choice
            read_image(str(path), "BGR")
    path.write_bytes(whole + b"something after the picture")
    assert np.array_equal(read_image(str(path), "BGR"), utils.read_image(str(path), "BGR"))


def test_the_registry(record):
    names = {name for name, _ in MAPPER_REGISTRY}
    assert names >= {"CocoMapper", "CityscapesMapper", "KeypointMapper"}
    assert type(build_mapper(config(), is_train=True)) is CocoMapper
    cityscapes = build_mapper(config(MAPPER="CityscapesMapper"), is_train=True)
    assert type(cityscapes) is CityscapesMapper
    with pytest.raises(UsageError, match="INPUT.MAPPER is 'Coco', .*CityscapesMapper"):
        build_mapper(config(MAPPER="Coco"), is_train=True)


def test_a_config_of_detectron2_alone_works(record):
    from detectron2.config import get_cfg

    record["annotations"] = [annotation()]
    assert len(CocoMapper(get_cfg(), is_train=True)(record)["instances"]) == 1


def test_cityscapes_takes_pixels_as_they_lie(record, tmp_path):
    path = tmp_path / "turned.jpg"
    path.write_bytes(_files()["jpeg of orientation 6"])
    turned = record | {"file_name": str(path), "height": 12, "width": 9, "annotations": []}
    with pytest.raises(DataError, match="EXIF"):
        CocoMapper(config(), is_train=True)(turned)
    sample = CityscapesMapper(config("INPUT.MIN_SIZE_TRAIN", "(9,)"), is_train=True)(turned)
    assert sample["image"].shape == (3, 12, 9)
    with pytest.raises(UsageError, match="CityscapesMapper needs 'bitmask'"):
        CityscapesMapper(config("INPUT.MASK_FORMAT", "polygon"), is_train=True)
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="does not decode"):
        CityscapesMapper(config(), is_train=True)(turned)


@pytest.fixture
def people(record) -> tuple[CfgNode, dict]:
    """A config and a record of two objects, one of them with a nose, a left and a right hand."""
    name = "test_mappers_people"
    MetadataCatalog.get(name).set(
        keypoint_names=["nose", "left", "right"], keypoint_flip_map=[("left", "right")]
    )
    points = [10.0, 5, 2, 6, 8, 2, 14, 8, 1]
    without = annotation()
    record["annotations"] = [without, annotation(keypoints=points)]
    opts = ["DATASETS.TRAIN", f"('{name}',)", "MODEL.KEYPOINT_ON", "True"]
    yield config(*opts, "INPUT.MIN_SIZE_TRAIN", "(20,)"), record
    MetadataCatalog.remove(name)


def points_after(kind, cfg: CfgNode, entry: dict, flips: list) -> torch.Tensor:
    mapper = kind(cfg, is_train=True)
    mapper.augmentations = T.AugmentationList(flips)
    keypoints = mapper(entry)["instances"].gt_keypoints.tensor
    assert keypoints.shape == (2, 3, 3)
    assert not keypoints[0].any()  # the object without keypoints has unlabelled ones
    return keypoints[1]


H, V = T.HFlipTransform(30), T.VFlipTransform(20)
NOSE, LEFT, RIGHT = [10, 5, 2], [6, 8, 2], [14, 8, 1]


@pytest.mark.parametrize("kind", [CocoMapper, KeypointMapper])
def test_keypoints_swap_when_flipped(people, kind):
    assert points_after(kind, *people, []).tolist() == [NOSE, LEFT, RIGHT]
    assert points_after(kind, *people, [H]).tolist() == [[20, 5, 2], [16, 8, 1], [24, 8, 2]]
    assert points_after(kind, *people, [H, H]).tolist() == [NOSE, LEFT, RIGHT]


def test_keypoints_swap_in_a_vertical_mirror_too(people):
    unswapped = [[10, 15, 2], [6, 12, 2], [14, 12, 1]]
    assert points_after(CocoMapper, *people, [V]).tolist() == unswapped
    swapped = [unswapped[0], unswapped[2], unswapped[1]]
    assert points_after(KeypointMapper, *people, [V]).tolist() == swapped
    half_turn = [[20, 15, 2], [24, 12, 2], [16, 12, 1]]
    assert points_after(KeypointMapper, *people, [H, V]).tolist() == half_turn


def test_the_keypoint_mapper_asks_no_key_but_a_schema(people):
    cfg, entry = people
    cfg.MODEL.KEYPOINT_ON = False
    assert not CocoMapper(cfg, is_train=True)(entry)["instances"].has("gt_keypoints")
    assert points_after(KeypointMapper, cfg, entry, []).tolist() == [NOSE, LEFT, RIGHT]
    entry["annotations"] = []
    empty = KeypointMapper(cfg, is_train=True)(entry)["instances"]
    assert empty.gt_keypoints.tensor.shape == (0, 3, 3)
    with pytest.raises(UsageError, match="keypoint_flip_map"):
        KeypointMapper(config("DATASETS.TRAIN", "('scenes_nowhere',)"), is_train=True)


@pytest.mark.parametrize("points", [[1.0, 2, 2], [1.0, 2, 2] * 2 + [1.0, float("nan"), 2], "x"])
def test_keypoints_of_another_schema_are_named(people, points):
    cfg, entry = people
    entry["annotations"][1]["keypoints"] = points
    with pytest.raises(DataError, match="annotation id 901: .*"):
        KeypointMapper(cfg, is_train=True)(entry)


def test_copy_paste_is_made_from_keys(record):
    cfg = config(COPY_PASTE__PROBABILITY=0.5, COPY_PASTE__MAX_OBJECTS=3)
    mapper = CocoMapper(cfg, is_train=True)
    assert (mapper.copy_paste.probability, mapper.copy_paste.max_objects) == (0.5, 3)
    assert CocoMapper(cfg, is_train=False).copy_paste is None
    record["annotations"] = [annotation()]
    own, partner = mapper(record), mapper(record)
    assert 1 <= len(mapper.copy_paste(own, partner)["instances"]) <= 2

"""What a config takes from the data, and when both must agree."""

import json

import pytest

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data import register_dataset
from mask_rcnn_ext.engine.follow_data import follow_data
from mask_rcnn_ext.errors import UsageError

SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]
POINTS = {"names": ["nose", "left_ear", "right_ear"], "flip": [["left_ear", "right_ear"]]}


@pytest.fixture
def register(tmp_path):
    def make(name, classes=("cat", "dog"), segmentation=SQUARE, crowd=0, **more):
        annotation = {"id": 8, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16}
        annotation |= {"iscrowd": crowd, "segmentation": segmentation}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 10, "width": 10}],
            "annotations": [annotation],
            "categories": [{"id": i + 1, "name": c} for i, c in enumerate(classes)],
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        register_dataset(name=name, annotations=str(path), images=str(tmp_path), **more)
        return name

    return make


def config(train, test=(), *words):
    cfg = load_config(
        None, ["DATASETS.TRAIN", repr((train,)), "DATASETS.TEST", repr(tuple(test)), *words]
    ).clone()
    cfg.defrost()
    return cfg


def given(*keys):
    return lambda key: key in keys


def test_the_number_of_classes_follows(register):
    cfg = config(register("follow_two"))
    follow_data(cfg, given(), training=True)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    named = config("follow_two")
    follow_data(named, given("MODEL.ROI_HEADS.NUM_CLASSES"), training=True)
    assert named.MODEL.ROI_HEADS.NUM_CLASSES == 80  # the check of the data then refuses it


def test_training_and_test_must_have_the_same_classes(register):
    names = register("follow_a"), register("follow_b", ("dog", "cat"))
    with pytest.raises(UsageError, match="class 0 is 'cat' and 'dog'"):
        follow_data(config(names[0], names[1:]), given(), training=True)
    follow_data(config(names[0], names[1:]), given(), training=False)  # the training set is unread


RLE = {"size": [10, 10], "counts": [11, 4, 85]}


@pytest.mark.parametrize(
    ("segmentation", "crowd", "keys", "expected"),
    [
        (SQUARE, 0, (), "bitmask"),
        (RLE, 0, (), "bitmask"),
        (SQUARE, 0, ("INPUT.MASK_FORMAT",), "polygon"),
        (RLE, 1, ("INPUT.MASK_FORMAT",), "polygon"),  # crowds are not learned
    ],
)
def test_masks_have_one_form(register, request, segmentation, crowd, keys, expected):
    name = register(f"follow_masks_{abs(hash(request.node.name))}", ("a",), segmentation, crowd)
    cfg = config(name, (), "MODEL.MASK_ON", "True")
    follow_data(cfg, given(*keys), training=True)
    assert expected == cfg.INPUT.MASK_FORMAT


def test_polygons_by_name_and_a_file_with_rle(register):
    cfg = config(register("follow_rle", ("a",), RLE), (), "MODEL.MASK_ON", "True")
    with pytest.raises(
        UsageError, match=r"'polygon', but 1 objects.*annotation id 8 in .*rle\.json"
    ):
        follow_data(cfg, given("INPUT.MASK_FORMAT"), training=True)


def test_keypoints_follow(register):
    name = register("follow_points", keypoints={**POINTS, "sigmas": [0.1, 0.2, 0.2]})
    cfg = config(name, (), "MODEL.KEYPOINT_ON", "True")
    follow_data(cfg, given(), training=True)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 3
    assert cfg.TEST.KEYPOINT_OKS_SIGMAS == [0.1, 0.2, 0.2]
    named = given("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS")
    again = config(name, (), "MODEL.KEYPOINT_ON", "True")
    with pytest.raises(UsageError, match="NUM_KEYPOINTS is 17, but .* has 3 keypoints: nose"):
        follow_data(again, named, training=True)


def test_keypoints_that_cannot_be(register):
    on = ("MODEL.KEYPOINT_ON", "True")
    with pytest.raises(UsageError, match="'follow_none' names no keypoints"):
        follow_data(config(register("follow_none"), (), *on), given(), training=True)
    unmeasured = register("follow_unmeasured", keypoints=POINTS)
    with pytest.raises(UsageError, match="has 3 keypoints, but COCO's sigmas are 17"):
        follow_data(config(unmeasured, (), *on), given(), training=True)
    other = register("follow_other", keypoints={"names": ["a"], "flip": [], "sigmas": [0.1]})
    with pytest.raises(UsageError, match="different keypoints: nose, left_ear, right_ear and a"):
        follow_data(config(unmeasured, (other,), *on), given(), training=True)

"""Data distillation: the threshold, what is counted, what is kept, and that views are undone."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.registration import register_dataset
from mask_rcnn_ext.engine.distillation import (
    LabelledSet,
    Unlabelled,
    choose_threshold,
    images_in_folder,
    images_of_file,
    parts_of,
    predict_parts,
    read_labelled,
    teacher_key,
    write_labels,
)
from mask_rcnn_ext.engine.prediction import Prediction
from mask_rcnn_ext.errors import DataError, UsageError, UserError
from mask_rcnn_ext.modeling.test_time_augmentation import RCNNWithTTA

# ---- threshold


@pytest.mark.parametrize(
    ("wanted", "score", "kept"),
    [
        (Fraction(2), 0.8, 2),
        (Fraction(5, 2), 0.8, 2),  # as near to 2 as to 3
        (Fraction(26, 10), 0.5, 3),
        (Fraction(0), None, 0),
        (Fraction(1, 2), None, 0),
        (Fraction(5), 0.1, 5),
        (Fraction(9), 0.1, 5),
    ],
)
def test_the_nearest_number(wanted, score, kept):
    found = choose_threshold(np.array([0.1, 0.8, 0.3, 0.9, 0.5]), wanted)
    assert (found.score, found.kept, found.available) == (score, kept, 5)
    assert found.falls_short == (wanted > 5)


@pytest.mark.parametrize(("wanted", "kept"), [(1, 1), (2, 1), (3, 4), (4, 4), (2.5, 1), (5, 4)])
def test_equal_scores_stay_together(wanted, kept):
    scores = np.array([0.5, 0.9, 0.5, 0.2, 0.5, 0.2, 0.2])
    found = choose_threshold(scores, Fraction(wanted))
    assert found.kept == kept == found.keeps(scores).sum()


@given(
    st.lists(st.integers(0, 6).map(lambda n: float(np.float32(n / 7))), max_size=12),
    st.fractions(0, 14, max_denominator=9),
)
def test_no_other_threshold_is_nearer(scores, wanted):
    scores = np.array(scores)
    found = choose_threshold(scores, wanted)
    assert found.keeps(scores).sum() == found.kept
    others = [(scores >= one).sum() for one in scores] + [0]
    assert abs(found.kept - wanted) == min(abs(int(one) - wanted) for one in others)


def test_no_predictions():
    found = choose_threshold(np.zeros(0), Fraction(3))
    assert (found.score, found.kept, found.falls_short) == (None, 0, True)


# ---- the labelled set


def annotation(number, image, category=3, crowd=0, keypoints=None):
    entry = {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd}
    entry |= {"bbox": [1, 1, 5, 5], "area": 25, "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]}
    return entry if keypoints is None else {**entry, "keypoints": keypoints}


def write_set(folder: Path, annotations, categories, images=3) -> Path:
    folder.mkdir(exist_ok=True)
    listed = [
        {"id": n, "file_name": f"{n}.png", "height": 20, "width": 30} for n in range(1, images + 1)
    ]
    path = folder / "set.json"
    path.write_text(
        json.dumps({"images": listed, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.fixture
def registered(tmp_path, request):
    """Register a set under a name of this test."""

    def register(annotations, categories, suffix="", **more):
        path = write_set(tmp_path / f"set{suffix}", annotations, categories)
        name = f"{request.node.name}{suffix}"
        register_dataset(name=name, annotations=str(path), images=str(path.parent), **more)
        return name

    return register


TWO = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def test_crowds_do_not_count_and_empty_images_do(registered):
    rows = [annotation(1, 1), annotation(2, 1, 7), annotation(3, 2, 3, crowd=1), annotation(4, 2)]
    like = read_labelled([registered(rows, TWO)])
    assert like.class_names == ["cat", "dog"]  # in the order of the ids
    assert (like.images, like.instances.tolist()) == (3, [2, 1])
    assert (like.per_image(), like.per_image(1)) == (Fraction(1), Fraction(1, 3))
    assert like.keypoint_names == ()
    assert not like.has_keypoints.any()


def test_a_set_of_two(registered):
    first = registered([annotation(1, 1)], TWO, "a")
    second = registered([annotation(n, 2, 7) for n in (1, 2, 3)], TWO, "b")
    like = read_labelled([first, second])
    assert (like.images, like.instances.tolist(), like.names) == (6, [1, 3], (first, second))
    assert len(like.files) == 6
    other = registered([annotation(1, 1)], TWO[1:], "c")
    with pytest.raises(UsageError, match="dog"):
        read_labelled([first, other])


def test_labelled_keypoints_of_classes_that_have_them(registered):
    categories = [{"id": 3, "name": "cat", "keypoints": ["left_ear", "right_ear"]}, TWO[0]]
    rows = [
        annotation(1, 1, keypoints=[2, 2, 2, 0, 0, 0]),
        annotation(2, 1, keypoints=[2, 2, 1, 4, 4, 2]),
        annotation(3, 2, keypoints=[0, 0, 0, 0, 0, 0]),
        annotation(4, 2, crowd=1, keypoints=[2, 2, 2, 4, 4, 2]),
        annotation(5, 2, 7, keypoints=[2, 2, 2, 4, 4, 2]),  # dogs have none
    ]
    like = read_labelled([registered(rows, categories)])
    assert like.keypoint_names == ("left_ear", "right_ear")
    assert like.has_keypoints.tolist() == [True, False]
    assert like.keypoints == 3
    assert like.keypoints_per_instance() == Fraction(1)


def test_keypoints_that_only_the_registration_knows(registered):
    rows = [annotation(1, 1, keypoints=[2, 2, 2])]
    like = read_labelled([registered(rows, TWO, keypoints={"names": ["nose"]})])
    assert like.has_keypoints.tolist() == [True, True]
    assert like.keypoints == 1


def test_sets_that_cannot_be_counted(registered):
    with pytest.raises(DataError, match="no annotation that is not a crowd"):
        read_labelled([registered([annotation(1, 1, crowd=1)], TWO)])
    with pytest.raises(UsageError, match="no_such_set"):
        read_labelled(["no_such_set"])


# ---- images


def test_images_of_a_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "a.txt", "deep/a.jpg", "c.png"):
        (tmp_path / name).touch()
    found = images_in_folder(tmp_path, (".png", ".jpg"))
    assert [(one.id, one.file_name) for one in found] == [
        (1, "b.PNG"),
        (2, "c.png"),
        (3, "deep/a.jpg"),
    ]
    assert found[2].path == tmp_path / "deep" / "a.jpg"
    with pytest.raises(UsageError, match="holds no image"):
        images_in_folder(tmp_path, (".gif",))


def test_images_of_a_file(tmp_path):
    path = write_set(tmp_path / "set", [], [])
    found = images_of_file(str(path), "shots")
    assert [one.id for one in found] == [1, 2, 3]
    assert found[0].path == Path("shots/1.png")
    with pytest.raises(UsageError, match="lists no images"):
        images_of_file(str(write_set(tmp_path / "none", [], [], images=0)), "shots")


# ---- predictions and labels, by hand

LIKE = LabelledSet(
    names=("labelled",),
    categories=[{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    images=4,
    instances=np.array([4, 2]),  # 1.5 an image
    keypoint_names=("left_ear", "right_ear"),
    has_keypoints=np.array([True, False]),
    keypoints=5,  # 1.25 a cat
    files=frozenset(),
)
SCORES = {"1.png": [0.9, 0.8, 0.7], "2.png": [0.95, 0.6], "3.png": [0.3], "4.png": []}
IMAGES = [
    Unlabelled(number * 10, name, Path("shots") / name) for number, name in enumerate(SCORES, 1)
]


class ByHand:
    """Objects of 4 x 3 pixels; every second one is a dog. Counts how often it is asked."""

    def __init__(self, scores=SCORES, masks=True):
        self.scores, self.masks = scores, masks
        self.asked: list[str] = []

    def __call__(self, one: Unlabelled) -> Prediction:
        path = one.path
        self.asked.append(path.name)
        scores = np.array(self.scores[path.name], np.float32)
        count = len(scores)
        corners = np.arange(count, dtype=np.float32)[:, None] + [2.0, 3.0, 6.0, 6.0]
        points = np.zeros((count, 2, 3), np.float32)
        points[:, 0] = [3.5, 4.5, 0.5]
        points[:, 1] = [5.5, 4.5, 0.25]
        points[:, :, 2] *= scores[:, None]
        return Prediction(
            image_size=(20, 30),
            boxes=corners.astype(np.float32),
            scores=scores,
            classes=np.arange(count) % 2,
            class_names=["cat", "dog"],
            category_ids=[1, 2],
            rles=[self.rle(number) for number in range(count)] if self.masks else None,
            keypoints=points,
        )

    @staticmethod
    def rle(number):
        from pycocotools import mask as coco_mask

        pixels = np.zeros((20, 30), np.uint8)
        pixels[3 + number : 6 + number, 2 + number : 6 + number] = 1
        rle = coco_mask.encode(np.asfortranarray(pixels))
        return {"size": [20, 30], "counts": rle["counts"].decode()}


@pytest.fixture
def label(tmp_path):
    """Predict and write; (what became of it, the file's content)."""

    def run(teacher=None, like=LIKE, images=IMAGES, **options):
        parts = parts_of(images, tmp_path / "parts", size=2)
        predict_parts(teacher or ByHand(), parts, [3, 7], progress=False)
        options = {"keypoints": False} | options
        done = write_labels(parts, like, tmp_path / "labels.json", {"weights": "w"}, **options)
        return done, json.loads((tmp_path / "labels.json").read_text())

    return run


def test_one_threshold_matches_the_average(label):
    done, coco = label()
    # 1.5 an image in 4 images are 6: all that there are, the one of 0.3 included
    assert (done.annotations, done.objects[0].score) == (6, pytest.approx(0.3))
    few = LabelledSet(**{**LIKE.__dict__, "instances": np.array([2, 2])})
    done, coco = label(like=few)
    assert [one["score"] for one in coco["annotations"]] == pytest.approx([0.9, 0.8, 0.7, 0.95])
    assert [one["image_id"] for one in coco["annotations"]] == [10, 10, 10, 20]
    assert [one["id"] for one in coco["annotations"]] == [1, 2, 3, 4]
    assert [one["id"] for one in coco["images"]] == [10, 20, 30, 40]  # without objects, too
    assert done.notes == []
    info = coco["info"]
    assert (info["weights"], info["objects"], info["objects_per_image"]) == ("w", 4, 1.0)
    assert info["like"]["objects_per_image"] == 1.0
    assert info["thresholds"] == [
        {"score": float(np.float32(0.7)), "kept": 4, "wanted": 4.0, "predictions": 6}
    ]


def test_an_annotation(label):
    first = label()[1]["annotations"][0]
    assert first["bbox"] == [2, 3, 4, 3]
    assert (first["category_id"], first["area"], first["iscrowd"]) == (3, 12, 0)
    assert first["segmentation"] == ByHand.rle(0)
    assert "keypoints" not in first


def test_a_box_is_that_of_the_mask(label):
    class Loose(ByHand):
        def __call__(self, one):
            found = super().__call__(one)
            found.boxes[:, 2:] += 5
            return found

    assert label(Loose())[1]["annotations"][0]["bbox"] == [2, 3, 4, 3]


def test_a_model_without_masks(label, tmp_path):
    parts = parts_of(IMAGES, tmp_path / "boxes", 2)
    predict_parts(ByHand(masks=False), parts, [3, 7], progress=False)
    write_labels(parts, LIKE, tmp_path / "labels.json", {}, keypoints=False)
    coco = json.loads((tmp_path / "labels.json").read_text())
    assert coco["categories"] == LIKE.categories
    assert [one["area"] for one in coco["annotations"]] == [12] * 6
    assert coco["annotations"][1]["bbox"] == [3, 4, 4, 3]
    assert not any("segmentation" in one for one in coco["annotations"])


def test_a_threshold_for_each_class(label):
    # cats: 0.9, 0.7, 0.95, 0.3 of which 1 an image are wanted; dogs: 0.8, 0.6 of which 0.5
    three = LabelledSet(**{**LIKE.__dict__, "instances": np.array([3, 1])})
    done, coco = label(like=three, per_class=True)
    assert [one.kept for one in done.objects] == [3, 1]
    assert sorted(one["score"] for one in coco["annotations"]) == pytest.approx(
        [0.7, 0.8, 0.9, 0.95]
    )
    assert [one["class"] for one in coco["info"]["thresholds"]] == ["cat", "dog"]
    assert done.annotations == len(coco["annotations"]) == 4


def test_a_class_that_the_labelled_set_lacks_gets_no_labels(label):
    cats = LabelledSet(**{**LIKE.__dict__, "instances": np.array([2, 0])})
    done, coco = label(like=cats, per_class=True)
    assert {one["category_id"] for one in coco["annotations"]} == {3}
    assert done.objects[1].score is None


def test_keypoints_are_chosen_by_their_own_scores(label):
    done, coco = label(keypoints=True)
    # The chosen cats are those of 0.95, 0.9, 0.7 and 0.3, with points of half and a quarter of it.
    assert done.keypoints.wanted == 5  # 1.25 each
    assert done.keypoints.kept == 5
    cats = [one for one in coco["annotations"] if one["category_id"] == 3]
    assert [one["num_keypoints"] for one in cats] == [2, 1, 2, 0]
    # COCO counts pixels, by half a pixel less
    assert cats[0]["keypoints"] == [3, 4, 2, 5, 4, 2]
    assert cats[1]["keypoints"] == [3, 4, 2, 0, 0, 0]
    assert cats[3]["keypoints"] == [0] * 6
    dogs = [one for one in coco["annotations"] if one["category_id"] == 7]
    assert not any("keypoints" in one for one in dogs)


def test_too_few_predictions_are_all_taken(label):
    many = LabelledSet(**{**LIKE.__dict__, "instances": np.array([9, 2])})
    done, coco = label(like=many)
    assert len(coco["annotations"]) == 6
    assert done.objects[0].falls_short
    assert "11.0 labels are wanted, but there are only 6 predictions" in done.notes[0]


def test_equal_scores_are_said(label):
    tied = ByHand({name: [0.5] * 3 for name in SCORES})
    eight = LabelledSet(**{**LIKE.__dict__, "instances": np.array([4, 4])})
    done, coco = label(tied, like=eight)
    assert len(coco["annotations"]) == done.annotations == 12
    assert done.notes[0].startswith("8.0 labels are wanted, and 12 are taken")
    with pytest.raises(DataError, match="should get 6.0 labels. The 12 predictions are no help"):
        label(tied)


def test_nothing_found(label, tmp_path):
    with pytest.raises(DataError, match="found nothing in 4 images"):
        label(ByHand({name: [] for name in SCORES}))
    assert not (tmp_path / "labels.json").exists()


def test_too_few_images_for_one_label(label):
    rare = LabelledSet(**{**LIKE.__dict__, "images": 100})
    with pytest.raises(
        DataError, match=r"has 0\.06 objects an image.* 0\.2 labels: none, .*Give more images"
    ):
        label(like=rare)


def test_an_empty_mask_is_no_label(label):
    class Empty(ByHand):
        @staticmethod
        def rle(number):
            return {"size": [20, 30], "counts": "hb0"} if number == 1 else ByHand.rle(number)

    done, coco = label(Empty())
    assert done.objects[0].available == len(coco["annotations"]) == 4
    assert all(one["area"] > 0 for one in coco["annotations"])


def test_an_image_that_does_not_decode(label):
    class Blind(ByHand):
        def __call__(self, one):
            if one.path.name == "2.png":
                raise DataError("image 2.png does not decode")
            return super().__call__(one)

    done, coco = label(Blind())
    assert done.failed == ["image 2.png does not decode"]
    assert [one["id"] for one in coco["images"]] == [10, 30, 40]
    assert coco["info"]["images_left_out"] == 1
    assert done.objects[0].wanted == Fraction(9, 2)  # 1.5 an image of three


def test_no_image_that_decodes(label):
    def blind(one):
        raise DataError("image does not decode")

    with pytest.raises(DataError, match="none of the 4 images can be used: image does not"):
        label(blind)


# ---- a run that stops


def test_a_stopped_run_goes_on(tmp_path):
    whole, broken = (parts_of(IMAGES, tmp_path / name, size=2) for name in ("whole", "broken"))
    predict_parts(ByHand(), whole, [3, 7], progress=False)

    class Dies(ByHand):
        def __call__(self, one):
            if one.path.name == "4.png":
                raise KeyboardInterrupt
            return super().__call__(one)

    with pytest.raises(KeyboardInterrupt):
        predict_parts(Dies(), broken, [3, 7], progress=False)
    assert [part.is_done for part in broken] == [True, False]
    second = ByHand()
    predict_parts(second, broken, [3, 7], progress=False)
    assert second.asked == ["3.png", "4.png"]
    for one, other in zip(whole, broken, strict=True):
        assert {**one.read(), "commit": ""} == {**other.read(), "commit": ""}
        assert one.path.name == other.path.name
    predict_parts(second, broken, [3, 7], progress=False)
    assert len(second.asked) == 2


def test_parts_of_other_images_are_not_taken(tmp_path):
    names = [part.path.name for part in parts_of(IMAGES, tmp_path, size=2)]
    longer = parts_of([*IMAGES, Unlabelled(50, "5.png", Path("5.png"))], tmp_path, size=2)
    assert [part.path.name for part in longer][:2] == names  # more images: the first stay
    moved = [Unlabelled(one.id, one.file_name, Path("other") / one.file_name) for one in IMAGES]
    assert not set(names) & {part.path.name for part in parts_of(moved, tmp_path, size=2)}
    assert len(set(names)) == 2


def test_a_part_that_is_damaged(tmp_path):
    part = parts_of(IMAGES, tmp_path, 4)[0]
    for text in ("{", "[]", '{"images": []}'):
        part.path.write_text(text)
        with pytest.raises(DataError, match="remove it"):
            part.read()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    parts = parts_of(IMAGES, tmp_path / "file", 4)
    with pytest.raises(UserError, match="cannot write"):
        predict_parts(ByHand(), parts, [3, 7], progress=False)


def test_a_teacher_is_its_config_and_its_weights():
    def key(*words, sha="aa"):
        return teacher_key(load_config(None, words), sha)

    assert key() == key("MODEL.WEIGHTS", "elsewhere.pth") == key("OUTPUT_DIR", "x")
    others = {key(sha="bb"), key("TEST.AUG.FLIP", "False"), key("TEST.AUG.MIN_SIZES", "(400,)")}
    assert len(others | {key()}) == 4


# ---- views


class Equivariant(GeneralizedRCNN):
    """Finds the bright rectangle exactly, whatever the view; ears at the quarters of its width.

    A mirrored face has its left ear on the same side of the picture as any face.
    """

    def __init__(self):
        nn.Module.__init__(self)
        self.roi_heads = nn.Module()
        self.proposal_generator = None
        self.views: list[tuple[int, int]] = []

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        assert not do_postprocess
        return [self.one(given["image"], detected_instances) for given in batched_inputs]

    def one(self, image, detected):
        bright = image[0] > 127
        rows = torch.nonzero(bright.any(1)).flatten()
        columns = torch.nonzero(bright.any(0)).flatten()
        found = Instances(tuple(image.shape[1:]))
        if detected is None:
            self.views.append(tuple(image.shape[1:]))
            corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            found.pred_boxes = Boxes(torch.tensor([corners], dtype=torch.float32))
            found.scores = torch.tensor([0.9])
            found.pred_classes = torch.tensor([0])
            return found
        maps = torch.zeros(1, 3, 8, 8)
        maps[0, 0, 1, 3:5] = 10.0  # nose, in the middle
        maps[0, 1, 4, 1] = 10.0  # left ear
        maps[0, 2, 4, 6] = 10.0  # right ear
        found.pred_keypoint_heatmaps = maps
        return found


def test_views_are_undone_exactly():
    metadata = MetadataCatalog.get("distillation_test_faces")
    metadata.set(
        keypoint_names=["nose", "left_ear", "right_ear"],
        keypoint_flip_map=[("left_ear", "right_ear")],
    )
    words = ["MODEL.DEVICE", "cpu", "MODEL.MASK_ON", "False", "MODEL.KEYPOINT_ON", "True"]
    words += ["MODEL.ROI_HEADS.NUM_CLASSES", "1", "TEST.AUG.MIN_SIZES", "(40, 80, 120)"]
    words += ["DATASETS.TRAIN", "('distillation_test_faces',)"]
    model = Equivariant()
    picture = torch.zeros(3, 40, 60, dtype=torch.uint8)
    picture[:, 8:24, 12:44] = 255  # not in the middle: mirrored, it lies elsewhere
    tta = RCNNWithTTA(load_config(None, words), model)
    found = tta.inference([{"image": picture, "height": 40, "width": 60}], do_postprocess=False)[0]
    assert model.views == [(40, 60)] * 2 + [(80, 120)] * 2 + [(120, 180)] * 2
    assert found.pred_boxes.tensor.tolist() == [[12, 8, 44, 24]]
    nose, left, right = found.pred_keypoints[0, :, 0].tolist()
    assert left == pytest.approx(12 + 32 * 1.5 / 8, abs=1)
    assert right == pytest.approx(12 + 32 * 6.5 / 8, abs=1)
    assert left + right == pytest.approx(2 * 28, abs=1)
    assert nose == pytest.approx(28, abs=3)

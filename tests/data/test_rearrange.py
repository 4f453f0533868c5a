"""Parts of a COCO dict, and several as one: nothing lost, nothing changed that need not be."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.data.formats import CocoImport
from mask_rcnn_ext.data.merge import merge
from mask_rcnn_ext.data.rearrange import instances_per_class, restricted, split, subset
from mask_rcnn_ext.errors import DataError, UsageError

Coco = dict[str, Any]
PARTS = {"train": 0.8, "val": 0.1, "test": 0.1}


def coco_of(classes_of_images: list[list[str]], names: str = "abc", first_id: int = 1) -> Coco:
    """One image for each list, with an object of each class in it; odd keys everywhere."""
    ids = {name: 10 * k for k, name in enumerate(names, 1)}
    images, annotations = [], []
    for k, classes in enumerate(classes_of_images):
        images.append(
            {
                "id": first_id + k,
                "file_name": f"v{k % 4}_{k}.jpg",
                "height": 5,
                "width": 6,
                "odd": k,
            }
        )
        for name in classes:
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": first_id + k,
                    "category_id": ids[name],
                    "bbox": [0, 0, k, 1],
                    "iscrowd": 0,
                    "odd": name,
                }
            )
    return {
        "info": {"year": 1},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "odd": name} for name, i in ids.items()],
    }


def everything(parts: list[Coco], section: str) -> list[Any]:
    return sorted((entry for part in parts for entry in part[section]), key=lambda e: e["id"])


# Splitting


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=3, max_size=40),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=60)
def test_each_image_is_in_one_part_with_all_its_annotations(images, seed):
    coco = coco_of(images)
    before = copy.deepcopy(coco)
    parts = list(split(coco, PARTS, seed=seed).values())
    assert coco == before
    for section in ("images", "annotations"):
        assert everything(parts, section) == coco[section]
    for part in parts:
        kept = {image["id"] for image in part["images"]}
        assert {a["image_id"] for a in part["annotations"]} <= kept
        assert part["images"], "an empty part"
        assert (part["categories"], part["info"]) == (coco["categories"], coco["info"])


def test_sizes_are_exact_and_rare_classes_are_everywhere():
    images = [["a"]] * 60 + [["a", "b"]] * 6 + [["c"]] * 3 + [[]] * 31
    random.Random(1).shuffle(images)
    for seed in range(20):
        parts = split(coco_of(images), PARTS, seed=seed)
        assert {name: len(part["images"]) for name, part in parts.items()} == {
            "train": 80,
            "val": 10,
            "test": 10,
        }
        for part in parts.values():
            assert all(instances_per_class(part).values())
            owners = {a["image_id"] for a in part["annotations"]}
            empty = len(part["images"]) - len(owners)
            assert abs(empty - 0.31 * len(part["images"])) <= 1
        assert 48 <= instances_per_class(parts["train"])["a"] <= 58


def test_the_seed_decides():
    coco = coco_of([["a"]] * 30)
    chosen = [split(coco, PARTS, seed=seed)["val"]["images"] for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2] or chosen[0] != chosen[3]


def test_groups_stay_together():
    coco = coco_of([["a"], ["b"], ["c"], []] * 10)
    for pattern in (r"^v\d", r"^(v)(\d)_"):
        parts = split(coco, {"x": 0.5, "y": 0.5}, group=pattern)
        prefixes = [{image["file_name"][:2] for image in part["images"]} for part in parts.values()]
        assert not prefixes[0] & prefixes[1]
        assert [len(p) for p in prefixes] == [2, 2]
    with pytest.raises(DataError, match="4 groups .* 5 parts"):
        split(coco, {str(k): 0.2 for k in range(5)}, group=r"^v\d")
    with pytest.raises(UsageError, match=r"matches nothing in 'v0_0.jpg' \(image id 1\)"):
        split(coco, PARTS, group="w")
    with pytest.raises(UsageError, match="no regular expression"):
        split(coco, PARTS, group="(")


@pytest.mark.parametrize("parts", [{"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0}])
def test_fractions_must_be_fractions(parts):
    with pytest.raises(UsageError, match="sum up to"):
        split(coco_of([["a"]] * 9), parts)


def test_too_few_images_for_the_parts():
    with pytest.raises(DataError, match="2 images cannot be divided into 3 parts"):
        split(coco_of([["a"], []]), PARTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"][0].update(id=2), ["images", "twice", "2"]),
        (lambda c: c["images"][0].pop("id"), ["images", "number 0"]),
        (lambda c: c["annotations"][0].update(image_id="1"), ["1 annotations", "image_id", "1"]),
        (lambda c: c["annotations"][0].update(category_id=None), ["category_id"]),
    ],
)
def test_files_in_which_links_are_broken_are_refused(change, words):
    coco = coco_of([["a"], ["b"], ["c"]])
    change(coco)
    for work in (
        lambda: split(coco, PARTS),
        lambda: subset(coco, count=1),
        lambda: merge([imported(coco), imported(coco)]),
    ):
        with pytest.raises(DataError) as caught:
            work()
        assert all(word in str(caught.value) for word in [*words, "data check"])


# Choosing


def test_classes_go_with_their_annotations_and_images_stay():
    coco = coco_of([["a", "b"], ["b"], []])
    made = subset(coco, classes=["c", "a"])
    assert [c["name"] for c in made["categories"]] == ["a", "c"]  # the file's order
    assert made["images"] == coco["images"]
    assert made["annotations"] == [coco["annotations"][0]]
    dropped = subset(coco, classes=["a"], drop_empty=True)
    assert [image["id"] for image in dropped["images"]] == [1]
    with pytest.raises(UsageError, match="unknown class d"):
        subset(coco, classes=["d"])
    with pytest.raises(UsageError, match="no image is left"):
        subset(coco, classes=["c"], drop_empty=True)


def test_images_by_number_chance_and_id():
    coco = coco_of([["a"]] * 20)
    assert [i["id"] for i in subset(coco, count=3)["images"]] == [1, 2, 3]
    drawn = [[i["id"] for i in subset(coco, count=5, seed=s)["images"]] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert drawn[0] != drawn[2]
    made = subset(coco, ids=["7", 3])
    assert made == restricted(coco, [coco["images"][2], coco["images"][6]])
    with pytest.raises(UsageError, match="unknown image id 21"):
        subset(coco, ids=[21])
    for count in (0, 21):
        with pytest.raises(UsageError, match="there are 20"):
            subset(coco, count=count)


def test_crowds_do_not_fill_an_image():
    coco = coco_of([["a"], ["a"]])
    coco["annotations"][0]["iscrowd"] = 1
    assert [i["id"] for i in subset(coco, drop_empty=True)["images"]] == [2]
    assert instances_per_class(coco) == {"a": 1, "b": 0, "c": 0}


# Merging


def imported(coco: Coco, root: str = "/data/x", name: str = "x.json") -> CocoImport:
    return CocoImport(coco, [], [Path(name)], Path(root))


def test_classes_join_by_name_and_ids_stay_where_they_can():
    one = coco_of([["a"], ["b"]], "ab")
    two = coco_of([["b"], ["d"]], "db", first_id=100)  # d has the id of a
    before = copy.deepcopy((one, two))
    found = merge([imported(one), imported(two, "/data/y")])
    assert (one, two) == before
    assert [(c["id"], c["name"]) for c in found.coco["categories"]] == [
        (10, "a"),
        (20, "b"),
        (21, "d"),
    ]
    assert [i["id"] for i in found.coco["images"]] == [1, 2, 100, 101]
    assert [i["file_name"] for i in found.coco["images"]] == [
        "x/v0_0.jpg",
        "x/v1_1.jpg",
        "y/v0_0.jpg",
        "y/v1_1.jpg",
    ]
    assert found.image_root == Path("/data")
    names = {c["id"]: c["name"] for c in found.coco["categories"]}
    assert [names[a["category_id"]] for a in found.coco["annotations"]] == ["a", "b", "b", "d"]
    assert [a["odd"] for a in found.coco["annotations"]] == ["a", "b", "b", "d"]
    assert found.notes == []


def test_ids_that_clash_are_counted_anew():
    found = merge([imported(coco_of([["a"], ["a"]])), imported(coco_of([["b"]]), "/data/y")])
    assert [i["id"] for i in found.coco["images"]] == [1, 2, 3]
    assert [a["id"] for a in found.coco["annotations"]] == [1, 2, 3]
    assert [a["image_id"] for a in found.coco["annotations"]] == [1, 2, 3]
    assert len(found.notes) == 2
    assert all("counted anew from 1" in note for note in found.notes)


def test_the_same_picture_becomes_one_image():
    one, two = coco_of([["a"], []]), coco_of([["b"]], first_id=50)
    found = merge([imported(one, "/data"), imported(two, "/data/.")])
    assert [i["id"] for i in found.coco["images"]] == [1, 2]
    assert [a["image_id"] for a in found.coco["annotations"]] == [1, 1]
    assert found.notes == [
        "1 x picture in several parts: one image with all annotations (v0_0.jpg)"
    ]
    again = merge([imported(one, "/data"), imported(copy.deepcopy(one), "/data")])
    assert any("both kept" in note for note in again.notes)
    assert len(again.coco["annotations"]) == 2
    two["images"][0]["height"] = 9
    with pytest.raises(DataError, match=r"v0_0\.jpg has height 9 in x\.json, 5"):
        merge([imported(one, "/data"), imported(two, "/data")])


def test_other_keys_and_conflicts():
    one, two = coco_of([["a"]], "a"), coco_of([["A"]], "A", first_id=9)
    one["licenses"] = [{"id": 1, "name": "free"}]
    two["licenses"] = [{"id": 1, "name": "not"}, {"id": 2, "name": "free"}]
    one["images"][0]["license"], two["images"][0]["license"] = 1, 1
    two["info"] = {"year": 2}
    two["more"] = [1]
    found = merge([imported(one), imported(two, "/data/y", "y.json")])
    assert found.coco["licenses"] == [{"id": 1, "name": "free"}, {"id": 2, "name": "not"}]
    assert [i["license"] for i in found.coco["images"]] == [1, 2]
    assert found.coco["more"] == [1]
    assert found.coco["info"] == {"year": 1}
    assert sorted(found.notes) == [
        "1 x class 'A' beside 'a': kept apart (y.json)",
        "1 x key 'info' with another value: the first part's kept (y.json)",
    ]


def test_classes_described_in_two_ways():
    one, two = coco_of([["a"]], "a"), coco_of([["a"]], "a", first_id=9)
    two["categories"][0]["odd"] = "other"
    found = merge([imported(one), imported(two, "/y")])
    assert found.notes == ["1 x class 'a' described in two ways: first one kept (x.json)"]
    two["categories"][0]["keypoints"] = ["nose"]
    with pytest.raises(DataError, match="class 'a' has other keypoints"):
        merge([imported(one), imported(two, "/y")])


def test_split_then_merge_gives_it_back():
    coco = coco_of([["a", "b"], [], ["c"]] * 5)
    found = merge([imported(part) for part in split(coco, PARTS).values()])
    assert found.notes == []
    for section in ("images", "annotations", "categories"):
        assert everything([found.coco], section) == everything([coco], section)

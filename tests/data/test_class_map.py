"""Classes renamed, merged, dropped and ordered: by hand, against a slow reference, with errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.data.class_map import ClassChanges, apply_changes, map_classes
from mask_rcnn_ext.errors import DataError, UsageError

VEHICLES = ["person", "car", "bus", "misc"]


def _coco(names: list[str], ids: list[int] | None = None) -> dict[str, Any]:
    """One annotation a class, plus one for the first, all with an extra key."""
    ids = ids or [10 * (n + 1) for n in range(len(names))]
    classes = [*ids, ids[0]]
    return {
        "info": {"kept": True},
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
        "categories": [
            {"id": i, "name": n, "supercategory": f"s{n}"} for i, n in zip(ids, names, strict=True)
        ],
        "annotations": [
            {"id": 100 + n, "image_id": 1, "category_id": c, "extra": n}
            for n, c in enumerate(classes)
        ],
    }


def test_all_steps_in_one():
    coco = _coco(VEHICLES)
    before = copy.deepcopy(coco)
    changes = ClassChanges(
        rename=(("person", "human"),),
        merge=(("vehicle", ("car", "bus")),),
        drop=("misc",),
        order=("vehicle", "human"),
    )
    after, notes = apply_changes(coco, changes, "toy")
    assert coco == before
    assert after["categories"] == [
        {"id": 1, "name": "vehicle", "supercategory": "scar"},
        {"id": 2, "name": "human", "supercategory": "sperson"},
    ]
    assert [(a["id"], a["category_id"], a["extra"]) for a in after["annotations"]] == [
        (100, 2, 0),
        (101, 1, 1),
        (102, 1, 2),
        (104, 2, 4),
    ]
    assert after["images"] == before["images"]
    assert after["info"] == {"kept": True}
    assert notes == ["class 'misc' was dropped, with 1 annotations"]


def test_no_changes_give_the_same_object():
    coco = _coco(["b", "a"])
    assert apply_changes(coco, ClassChanges(), "toy") == (coco, [])
    assert apply_changes(coco, ClassChanges(), "toy")[0] is coco


def test_order_comes_from_the_ids_without_one_of_its_own():
    after, _ = apply_changes(_coco(["b", "a"], [7, 3]), ClassChanges(rename=(("a", "c"),)), "toy")
    assert [(c["id"], c["name"]) for c in after["categories"]] == [(1, "c"), (2, "b")]


def test_two_classes_swap_their_names():
    names = map_classes(["a", "b"], ClassChanges(rename=(("a", "b"), ("b", "a"))), "toy")
    assert names == {"a": "b", "b": "a"}


def test_a_class_that_has_the_new_name_takes_part_and_describes_it():
    changes = ClassChanges(merge=(("bus", ("car",)),))
    after, _ = apply_changes(_coco(VEHICLES), changes, "toy")
    assert [c["name"] for c in after["categories"]] == ["person", "bus", "misc"]
    assert after["categories"][1]["supercategory"] == "sbus"
    assert [a["category_id"] for a in after["annotations"]] == [1, 2, 2, 3, 1]


def test_two_categories_of_one_name_become_one_class():
    after, _ = apply_changes(_coco(["a", "a", "b"]), ClassChanges(order=("b", "a")), "toy")
    assert [c["name"] for c in after["categories"]] == ["b", "a"]
    assert [a["category_id"] for a in after["annotations"]] == [2, 2, 1, 2]


def test_keep_drops_the_rest_in_words():
    after, notes = apply_changes(_coco(VEHICLES), ClassChanges(keep=("car",)), "toy")
    assert [c["name"] for c in after["categories"]] == ["car"]
    assert len(after["annotations"]) == 1
    assert notes[0] == "class 'person' was dropped, with 2 annotations"
    assert len(notes) == 3


def test_a_test_set_without_annotations_stays_without():
    coco = _coco(VEHICLES)
    del coco["annotations"]
    after, _ = apply_changes(coco, ClassChanges(keep=("car",)), "toy")
    assert "annotations" not in after


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (ClassChanges(rename=(("persn", "p"),)), "rename: .* no class 'persn'; nearest: person"),
        (ClassChanges(rename=(("car", "bus"),)), r"use merge: \{bus: \[car, bus\]\}"),
        (ClassChanges(merge=(("v", ("car", "bsu")),)), "merge.v: .* 'bsu'; nearest: bus"),
        (ClassChanges(merge=(("v", ("car",)), ("w", ("car",)))), "'car' into both 'v' and 'w'"),
        (ClassChanges(merge=(("v", ("car",)), ("car", ("bus",)))), "makes 'car' and puts it into"),
        (ClassChanges(merge=(("v", ("car",)),), drop=("car",)), "drop: there is no class 'car'"),
        (ClassChanges(keep=("zebra",)), "keep: .* the classes are person, car, bus, misc"),
        (ClassChanges(drop=tuple(VEHICLES)), "no class is left of person, car"),
        (ClassChanges(order=("car", "person")), "must name all classes .* lacks bus, misc"),
        (ClassChanges(order=(*VEHICLES, "cat")), "order: there is no class 'cat'; nearest: car"),
    ],
)
def test_what_cannot_be_is_refused_with_the_nearest(changes, expected):
    with pytest.raises(UsageError, match=f"^toy: .*{expected}"):
        apply_changes(_coco(VEHICLES), changes, "toy")


@pytest.mark.parametrize("value", [99, None, "10", [1]])
def test_an_annotation_of_an_unknown_category_is_refused(value):
    coco = _coco(VEHICLES)
    coco["annotations"][2]["category_id"] = value
    with pytest.raises(DataError, match=r"toy: 1 annotations .*annotation 102 with"):
        apply_changes(coco, ClassChanges(keep=("car",)), "toy")


@pytest.mark.parametrize("category", [{"id": 1}, {"name": "x"}, {"id": [1], "name": "x"}])
def test_a_category_without_name_or_id_is_refused(category):
    coco = _coco(VEHICLES)
    coco["categories"].append(category)
    with pytest.raises(DataError, match="toy: a category lacks id or name"):
        apply_changes(coco, ClassChanges(keep=("car",)), "toy")


def _reference(names: list[str], pairs: list[tuple[int, str]], changes: ClassChanges) -> list[Any]:
    """(annotation, class name) pairs and final names, one class at a time, lists only."""
    current: list[tuple[str, str | None]] = [(name, name) for name in names]
    renamed = []
    for old, now in current:
        for before, after in changes.rename:
            if old == before:
                now = after
        renamed.append((old, now))
    merged = []
    for old, now in renamed:
        target = now
        for new, members in changes.merge:
            if now in members:
                target = new
        merged.append((old, target))
    dropped = [(old, None if now in changes.drop else now) for old, now in merged]
    final: list[str] = []
    for _, now in dropped:
        if now is not None and now not in final:
            final.append(now)
    if changes.order:
        final = list(changes.order)
    kept = []
    for annotation, name in pairs:
        for old, now in dropped:
            if old == name and now is not None:
                kept.append((annotation, now))
    return [final, kept]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[str], list[str], ClassChanges]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=2, max_size=8))
    picked = draw(st.lists(st.sampled_from(names), max_size=20))
    olds = draw(st.lists(st.sampled_from(names), unique=True, max_size=3))
    rename = tuple((old, f"R{number}") for number, old in enumerate(olds))
    now = [dict(rename).get(name, name) for name in names]
    merge: list[tuple[str, tuple[str, ...]]] = []
    free = draw(st.permutations(now))
    for number in range(draw(st.integers(0, 2))):
        size = draw(st.integers(1, 3))
        members, free = tuple(free[:size]), free[size:]
        if members:
            # A new name, or the name of a member.
            merge.append((draw(st.sampled_from([f"M{number}", members[0]])), members))
    changes = ClassChanges(rename=rename, merge=tuple(merge))
    left = list(dict.fromkeys(n for n in map_classes(names, changes, "x").values() if n))
    drop = draw(st.lists(st.sampled_from(left), unique=True, max_size=len(left) - 1))
    remain = [name for name in left if name not in drop]
    order = tuple(draw(st.permutations(remain))) if draw(st.booleans()) else ()
    return names, picked, ClassChanges(rename, tuple(merge), (), tuple(drop), order)


@settings(deadline=None, max_examples=200)
@given(_cases())
def test_any_changes_against_the_reference(case):
    names, picked, changes = case
    ids = {name: 5 + 3 * number for number, name in enumerate(names)}
    coco = {
        "images": [{"id": 1}],
        "categories": [{"id": ids[name], "name": name} for name in reversed(names)],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": ids[name]}
            for number, name in enumerate(picked)
        ],
    }
    final, kept = _reference(names, list(enumerate(picked)), changes)
    after, notes = apply_changes(coco, changes, "x")
    if changes:
        assert [c["id"] for c in after["categories"]] == list(range(1, len(final) + 1))
    else:
        final.sort(key=names.index)
    by_id = {c["id"]: c["name"] for c in after["categories"]}
    assert sorted(by_id.values()) == sorted(final)
    assert [by_id[i] for i in sorted(by_id)] == final
    assert [(a["id"], by_id[a["category_id"]]) for a in after["annotations"]] == kept
    assert sum(int(note.split()[-2]) for note in notes) == len(picked) - len(kept)

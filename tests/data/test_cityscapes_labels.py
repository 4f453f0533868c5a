"""The label table is the benchmark's."""

from __future__ import annotations

import pytest

from mask_rcnn_ext.data.cityscapes.labels import BY_ID, BY_NAME, LABELS, THINGS, find_label


def test_table_equals_cityscapesscripts():
    theirs = pytest.importorskip(
        "cityscapesscripts.helpers.labels", reason="needs the extra `cityscapes`"
    ).labels
    assert [tuple(label) for label in LABELS] == [
        (row.name, row.id, row.category, row.hasInstances, row.ignoreInEval, row.color)
        for row in theirs
    ]


def test_things_in_the_benchmarks_order():
    names = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert [label.name for label in THINGS] == names
    assert [label.id for label in THINGS] == [24, 25, 26, 27, 28, 31, 32, 33]


def test_names_and_ids_are_unique():
    assert len(BY_NAME) == len(BY_ID) == len(LABELS) == 35


@pytest.mark.parametrize(
    ("name", "label", "group"),
    [
        ("car", "car", False),
        ("cargroup", "car", True),
        ("polegroup", "polegroup", False),  # a label of its own
        ("skygroup", "sky", True),
        ("license plate", "license plate", False),
    ],
)
def test_names_of_groups(name, label, group):
    assert find_label(name) == (BY_NAME[label], group)


@pytest.mark.parametrize("name", ["foo", "foogroup", "group", "Car", "cargroupgroup", ""])
def test_unknown_names(name):
    assert find_label(name) is None


def test_group_names_agree_with_cityscapesscripts():
    module = pytest.importorskip(
        "cityscapesscripts.helpers.labels", reason="needs the extra `cityscapes`"
    )
    for label in LABELS:
        for name in (label.name, label.name + "group"):
            theirs = module.assureSingleInstanceName(name)
            found = find_label(name)
            assert found is not None
            if theirs is not None:  # they know no group of a class without instances
                assert found[0].name == theirs

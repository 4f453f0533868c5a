"""The benchmark's label table: names, ids as in its label images, colours, and the eight things."""

from __future__ import annotations

from typing import NamedTuple

GROUP_SUFFIX = "group"
INSTANCE_STEP = 1000  # instance id = label id * 1000 + number of the object within its class


class Label(NamedTuple):
    """One row of the table.

    Attributes:
        name: as in the polygon files
        id: as in the label images; -1 is never drawn
        category: what the benchmark sums classes up to
        has_instances: whether single objects are told apart
        ignore_in_eval: whether the benchmark leaves its pixels out
        colour: RGB in the colour images, 0 to 255
    """

    name: str
    id: int
    category: str
    has_instances: bool
    ignore_in_eval: bool
    colour: tuple[int, int, int]


LABELS = (
    Label("unlabeled", 0, "void", False, True, (0, 0, 0)),
    Label("ego vehicle", 1, "void", False, True, (0, 0, 0)),
    Label("rectification border", 2, "void", False, True, (0, 0, 0)),
    Label("out of roi", 3, "void", False, True, (0, 0, 0)),
    Label("static", 4, "void", False, True, (0, 0, 0)),
    Label("dynamic", 5, "void", False, True, (111, 74, 0)),
    Label("ground", 6, "void", False, True, (81, 0, 81)),
    Label("road", 7, "flat", False, False, (128, 64, 128)),
    Label("sidewalk", 8, "flat", False, False, (244, 35, 232)),
    Label("parking", 9, "flat", False, True, (250, 170, 160)),
    Label("rail track", 10, "flat", False, True, (230, 150, 140)),
    Label("building", 11, "construction", False, False, (70, 70, 70)),
    Label("wall", 12, "construction", False, False, (102, 102, 156)),
    Label("fence", 13, "construction", False, False, (190, 153, 153)),
    Label("guard rail", 14, "construction", False, True, (180, 165, 180)),
    Label("bridge", 15, "construction", False, True, (150, 100, 100)),
    Label("tunnel", 16, "construction", False, True, (150, 120, 90)),
    Label("pole", 17, "object", False, False, (153, 153, 153)),
    Label("polegroup", 18, "object", False, True, (153, 153, 153)),
    Label("traffic light", 19, "object", False, False, (250, 170, 30)),
    Label("traffic sign", 20, "object", False, False, (220, 220, 0)),
    Label("vegetation", 21, "nature", False, False, (107, 142, 35)),
    Label("terrain", 22, "nature", False, False, (152, 251, 152)),
    Label("sky", 23, "sky", False, False, (70, 130, 180)),
    Label("person", 24, "human", True, False, (220, 20, 60)),
    Label("rider", 25, "human", True, False, (255, 0, 0)),
    Label("car", 26, "vehicle", True, False, (0, 0, 142)),
    Label("truck", 27, "vehicle", True, False, (0, 0, 70)),
    Label("bus", 28, "vehicle", True, False, (0, 60, 100)),
    Label("caravan", 29, "vehicle", True, True, (0, 0, 90)),
    Label("trailer", 30, "vehicle", True, True, (0, 0, 110)),
    Label("train", 31, "vehicle", True, False, (0, 80, 100)),
    Label("motorcycle", 32, "vehicle", True, False, (0, 0, 230)),
    Label("bicycle", 33, "vehicle", True, False, (119, 11, 32)),
    Label("license plate", -1, "vehicle", False, True, (0, 0, 142)),
)

BY_NAME = {label.name: label for label in LABELS}
BY_ID = {label.id: label for label in LABELS}

# The classes that the instance benchmark counts, in its order.
THINGS = tuple(label for label in LABELS if label.has_instances and not label.ignore_in_eval)


def find_label(name: str) -> tuple[Label, bool] | None:
    """A label by the name in a polygon file, and whether it stands for a group of objects.

    `cargroup` is several cars that nobody could tell apart; `polegroup` is a label of its own.
    None for a name that is neither.
    """
    label = BY_NAME.get(name)
    if label is not None:
        return label, False
    label = BY_NAME.get(name.removesuffix(GROUP_SUFFIX)) if name.endswith(GROUP_SUFFIX) else None
    return None if label is None else (label, True)

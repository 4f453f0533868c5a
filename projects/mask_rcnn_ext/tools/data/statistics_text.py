"""The table that `data stats` prints, at most 100 columns wide."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from ...data.figures import QUANTILES
from ...data.statistics import DETECTION_CAP, MEDIUM, SMALL, ClassCount, Statistics

_WIDTH = 100
_NAME = 20  # columns of a class's name, of two classes in a line
_MOST_SIZES = 5
_NO_BREAK = "\u00a0"


def statistics_text(s: Statistics, name: str, classes: int | None) -> str:
    """
    Args:
        s: the figures
        name: of the data set
        classes: how many classes to list, the most frequent first; None is all
    """
    blocks = [
        _headline(s, name),
        _class_table(s, classes),
        _quantile_table(s),
        _size_table(s),
        _images(s),
        _keypoints(s),
        _notes(s),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _headline(s: Statistics, name: str) -> list[str]:
    parts = (
        f"{s.images:,} images ({s.empty_images:,} without an instance), "
        f"{s.instances:,} instances, {s.crowds:,} crowds, "
        f"{len(s.classes):,} class{'es' * (len(s.classes) != 1)}"
    )
    return [f"{name}  {s.path}", parts]


def _class_table(s: Statistics, most: int | None) -> list[str]:
    order = sorted(s.classes, key=lambda each: (-each.instances, -each.crowds, each.row))
    present = [each for each in order if each.instances or each.crowds]
    shown = present if most is None else present[:most]
    if not shown:
        return []
    head = f"{'class':{_NAME}} {'instances':>9} {'images':>8} {'crowds':>7}"
    half = -(-len(shown) // 2)
    if len(shown) <= 6:
        lines = [head, *(_class_row(each) for each in shown)]
    else:
        left, right = shown[:half], shown[half:]
        rights = [f"    {_class_row(each)}" for each in right] + [""]
        rows = zip((_class_row(each) for each in left), rights, strict=False)
        lines = [f"{head}    {head}", *((a + b).rstrip() for a, b in rows)]
    if len(present) > len(shown):
        rest = present[len(shown) :]
        lines.append(
            f"... and {len(rest):,} more classes with {rest[0].instances:,} to "
            f"{rest[-1].instances:,} instances (--classes all)"
        )
    return lines


def _class_row(each: ClassCount) -> str:
    return f"{_cell(each.name, _NAME)} {each.instances:>9,} {each.images:>8,} {each.crowds:>7,}"


def _quantile_table(s: Statistics) -> list[str]:
    rows: list[tuple[str, dict[str, float], float]] = [
        ("size, pixels", s.sizes, 1),
        ("size in training, pixels", s.sizes_training, 1),
        ("area, % of its image", s.image_share, 100),
        ("area, % of its box", s.box_fill, 100),
        ("box width / height", s.aspects, 1),
        ("instances of an image", s.per_image, 1),
        ("classes of an image", s.classes_per_image, 1),
        ("image height, pixels", s.image_heights, 1),
        ("image width, pixels", s.image_widths, 1),
    ]
    columns = [*QUANTILES, "mean"]
    lines = [f"{'':26}" + "".join(f"{column:>9}" for column in columns)]
    for title, values, factor in rows:
        if values:
            cells = "".join(f"{_figure(values[column] * factor):>9}" for column in columns)
            lines.append(f"{title:26}{cells}")
    return lines if len(lines) > 1 else []


def _figure(value: float) -> str:
    """Three digits or so."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _size_table(s: Statistics) -> list[str]:
    if not s.sizes:
        return []
    in_training = f"in training ({s.short_edge}, at most {s.max_size})"
    names = (f"small (< {SMALL:g})", f"medium (< {MEDIUM:g})", "large")
    lines = [f"{'':32}" + "".join(f"{name:>20}" for name in names)]
    rows = (("COCO's sizes, in the file", s.coco_sizes), (in_training, s.coco_sizes_training))
    for title, counts in rows:
        cells = "".join(f"{_with_share(n, s.instances):>20}" for n in counts.values())
        lines.append(f"{title:32}{cells}")
    levels = [
        _together(f"P{level} ({stride}): {_with_share(count, s.instances)}")
        for level, (stride, count) in enumerate(s.below_stride, start=2)
        if stride <= 32
    ]
    lines += _wrapped("Smaller in training than one cell of " + ", ".join(levels))
    return lines


def _with_share(number: int, of: int) -> str:
    return f"{number:,} ({number / of:.1%})" if of else f"{number:,}"


def _images(s: Statistics) -> list[str]:
    if not s.common_sizes:
        return []
    sizes = ", ".join(_together(f"{w} x {h} ({n:,})") for h, w, n in s.common_sizes[:_MOST_SIZES])
    shapes = ", ".join(f"{count:,} {shape}" for shape, count in s.image_aspects.items())
    return _wrapped(
        f"Images: {shapes}; {s.different_sizes:,} sizes, width x height, the most frequent: {sizes}"
    )


def _keypoints(s: Statistics) -> list[str]:
    if not s.keypoints:
        return []
    head = f"{'keypoint':{_NAME + 9}} {'labelled':>9} {'visible':>8}"
    one_class = len({point.class_name for point in s.keypoints}) == 1
    lines = [head]
    for point in s.keypoints:
        name = point.name if one_class else f"{point.class_name}: {point.name}"
        lines.append(f"{_cell(name, _NAME + 9)} {point.labelled:>9,} {point.visible:>8,}")
    return lines


def _notes(s: Statistics) -> list[str]:
    notes = []
    absent = s.classes_without_instance
    if absent:
        notes.append(f"{len(absent):,} classes without an instance: {_listed(absent)}")
    if s.images_beyond_cap:
        notes.append(
            f"{s.images_beyond_cap:,} images have more than {DETECTION_CAP} instances, which is "
            f"what a detector may find in an image: {s.beyond_cap:,} instances lie beyond it "
            "(TEST.DETECTIONS_PER_IMAGE)"
        )
    for why, count in s.skipped.items():
        if count:
            notes.append(f"{count:,} annotations {why} are not counted; see `data check`")
    if s.images_without_size:
        notes.append(f"{s.images_without_size:,} images have no usable height and width")
    for where, count in s.area_from.items():
        if where != "area" and count:
            known = {"mask": "counted in their masks", "box": "taken from their boxes"}
            notes.append(f"{count:,} areas were missing and are {known.get(where, 'unknown')}")
    return [line for note in notes for line in _wrapped(f"Note: {note}")]


def _listed(names: Sequence[str], most: int = 40) -> str:
    shown = ", ".join(_printable(name) for name in names[:most])
    return shown + (f", and {len(names) - most:,} more" if len(names) > most else "")


def _cell(text: str, width: int) -> str:
    """Cut or filled up to a width; East Asian letters take two columns."""
    text = _printable(text)
    while _columns(text) > width:
        text = text[:-2] + "…"
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _printable(text: str) -> str:
    """In one line, and without what a terminal would take for a command."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _together(text: str) -> str:
    """Not to be broken."""
    return text.replace(" ", _NO_BREAK)


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]

"""The page of `data browse`: pictures with masks, boxes and ids over them as SVG, and filters.

Frame of every coordinate: pixels of the picture it is drawn on, x to the right, y down.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .draw import class_colour
from .html import hex_colour, render_page
from .outlines import number

GENERATOR = "mask-rcnn-ext data browse"
_CARD = 400.0  # width and height, CSS pixels, that a picture has at most before it is enlarged
_LABEL = 11.5  # height of a label's letters, CSS pixels
_UNKNOWN = (170, 170, 170)


@dataclass(frozen=True)
class Shown:
    """One instance on one picture.

    Attributes:
        identity: the annotation's id, as text; "" if it has none
        class_name: as in the data
        class_index: picks the colour; -1 for a class that the file does not know
        box: x0, y0, x1, y1, or None
        path: the mask as an SVG path's `d`, "" for none
        holes: how the path is filled: `evenodd` (True) or `nonzero`
        area: pixels, NaN if unknown
        crowd: whether it stands for a group
        keypoints: x, y and visibility of each point, of which 0 is not drawn
        skeleton: pairs of points that a line joins
        note: what is wrong with it, for people
    """

    identity: str
    class_name: str
    class_index: int
    box: tuple[float, float, float, float] | None
    path: str
    holes: bool
    area: float
    crowd: bool = False
    keypoints: tuple[tuple[float, float, float], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    note: str = ""

    @property
    def size(self) -> float:
        """Square root of the area, pixels; 0 if unknown."""
        return math.sqrt(self.area) if self.area > 0 else 0.0

    @property
    def colour(self) -> str:
        return hex_colour(_UNKNOWN if self.class_index < 0 else class_colour(self.class_index))

    @property
    def extent(self) -> tuple[float, float] | None:
        """Width and height of the box."""
        return self.box and (self.box[2] - self.box[0], self.box[3] - self.box[1])

    def summary(self) -> str:
        """In one line, for a tooltip."""
        parts = [self.class_name + (" (crowd)" if self.crowd else "")]
        parts += [f"annotation {self.identity}"] if self.identity else []
        if self.extent:
            parts.append(" × ".join(number(side) for side in self.extent) + " px")
        parts += [f"area {self.area:,.0f} px"] if self.area > 0 else []
        parts += [self.note] if self.note else []
        return " · ".join(parts)


@dataclass(frozen=True)
class Label:
    """A class name at (x, y), the left end of its base line; `crowded` if it covers another."""

    text: str
    x: float
    y: float
    crowded: bool


@dataclass(frozen=True)
class Picture:
    """A picture and what lies on it, the large instances first.

    Attributes:
        source: data: address, "" if the file could not be read
        height, width: pixels
        instances: in the frame of height x width
        caption: beside the image's own, for variants of one image
    """

    source: str
    height: int
    width: int
    instances: tuple[Shown, ...]
    caption: str = ""
    labels: tuple[Label, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(_place_labels(self)))

    @property
    def css_width(self) -> float:
        """Width before it is enlarged, CSS pixels."""
        return min(_CARD, _CARD * self.width / self.height)

    @property
    def letter(self) -> float:
        """Height of a label's letters in pixels of the picture."""
        return _LABEL * self.width / self.css_width


@dataclass(frozen=True)
class Row:
    """Pictures beside each other under a title."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Card:
    """One image of the set.

    Attributes:
        identity: the image's id, as text
        file_name: as in the data
        note: what is wrong with the image, for people
        picture: the image itself
        rows: variants of it, e.g. augmented ones
    """

    identity: str
    file_name: str
    picture: Picture
    note: str = ""
    rows: tuple[Row, ...] = ()

    @property
    def description(self) -> str:
        """What is to be seen, for somebody who cannot."""
        found = Counter(one.class_name for one in self.picture.instances)
        listed = ", ".join(f"{count} {name}" for name, count in found.most_common(8))
        more = ", and more" if len(found) > 8 else ""
        return f"Image {self.identity}: {listed or 'no instances'}{more}"


@dataclass(frozen=True)
class ClassKey:
    """A class of the page: its name, its colour and its instances on the page."""

    name: str
    colour: str
    count: int


def browse_page(title: str, subtitle: str, cards: Sequence[Card]) -> bytes:
    """
    Args:
        title: the data set's name
        subtitle: what the page shows of it
        cards: in the order of the page
    Returns:
        an HTML file
    """
    shown = [one for card in cards for one in card.picture.instances]
    counts = Counter((one.class_name, one.colour) for one in shown)
    keys = [ClassKey(*key, count) for key, count in counts.items()]
    return render_page(
        "browse",
        title=title,
        generator=GENERATOR,
        subtitle=subtitle,
        cards=cards,
        classes=sorted(keys, key=lambda key: (-key.count, key.name)),
        instances=len(shown),
        has_masks=any(one.path for one in shown),
        has_keypoints=any(one.keypoints for one in shown),
        has_rows=any(card.rows for card in cards),
        number=number,
    )


def _place_labels(picture: Picture) -> list[Label]:
    """A place for each instance's label, near its box, where no earlier label is if possible."""
    letter = picture.letter
    taken: list[tuple[float, float, float, float]] = []
    labels = []
    # Small instances have less room: they choose first.
    order = sorted(range(len(picture.instances)), key=lambda i: picture.instances[i].size)
    for place in order:
        one = picture.instances[place]
        text = one.class_name + (" (crowd)" if one.crowd else "")
        text = text if len(text) <= 28 else text[:27] + "…"
        width, height = letter * _columns(text) * 0.62, letter * 1.15
        x0, y0, _, y1 = one.box or (0.0, 0.0, 0.0, 0.0)
        left = min(max(x0, 0.0), max(0.0, picture.width - width))
        lowest = max(0.0, picture.height - height)
        tops = (y0 - height, y0, y1 - height, y1, y0 + height, y0 - 2 * height)
        spots = [
            (left, top, left + width, top + height)
            for top in (min(max(top, 0.0), lowest) for top in tops)
        ]
        free = next((s for s in spots if not any(_overlap(s, t) for t in taken)), None)
        if free:
            taken.append(free)
        x, y = (free or spots[0])[:2]
        labels.append((place, Label(text, x, y + 0.9 * letter, free is None)))
    return [label for _, label in sorted(labels, key=lambda pair: pair[0])]


def _columns(text: str) -> float:
    """How many letters wide; East Asian ones count double."""
    return sum(1.8 if unicodedata.east_asian_width(c) in "WF" else 1.0 for c in text)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

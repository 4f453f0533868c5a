"""The picture of `data stats`: small multiples of one data set's figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ..data.figures import Histogram
from ..data.statistics import (
    DETECTION_CAP,
    MEDIUM,
    SMALL,
    STRIDES,
    KeypointCount,
    Statistics,
)
from ..files import atomic_write

SOFTWARE = "mask-rcnn-ext data stats"  # says the PNG, instead of matplotlib's version
_INK, _GREY, _GRID = "#212529", "#6c757d", "#e3e6ea"
_FILL, _DARK, _MARK = "#74a9d8", "#1f5f99", "#d6453d"
_MOST_CLASSES = 100  # bars that can be told apart over the picture's width
_MOST_POINTS = 40
_NAME_ROOM = 145.0  # letters times their points that fit between the classes and the next row


def draw_statistics(statistics: Statistics, target: str | Path, title: str) -> Path:
    """Draw everything into one PNG.

    Args:
        statistics: of one annotation file
        target: the PNG; its folder must exist
        title: the data set's name
    Returns:
        `target`
    """
    target = Path(target)
    figure = statistics_figure(statistics, title)
    with atomic_write(target) as file, warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the table has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="png", dpi=100, metadata={"Software": SOFTWARE})
    return target


def statistics_figure(statistics: Statistics, title: str) -> Figure:
    """The same as matplotlib's figure."""
    points = statistics.keypoints[:_MOST_POINTS]
    figure = Figure(figsize=(16, 14.5 if not points else 18.5), facecolor="white")
    FigureCanvasAgg(figure)
    heights = [1.25, 1.0, 1.0] + [1.0] * bool(points)
    grid = figure.add_gridspec(
        len(heights), 6, height_ratios=heights, hspace=0.48, wspace=0.55,
        left=0.075, right=0.98, top=0.9, bottom=0.055,
    )  # fmt: skip
    figure.text(0.012, 0.972, _plain(title), fontsize=21, weight="bold", color=_INK, va="center")
    figure.text(0.012, 0.948, _headline(statistics), fontsize=13, color=_GREY, va="center")
    _classes(figure.add_subplot(grid[0, :]), statistics)
    _sizes(figure.add_subplot(grid[1, :4]), statistics)
    _per_image(figure.add_subplot(grid[1, 4:]), statistics)
    _aspects(figure.add_subplot(grid[2, :2]), statistics)
    _box_fill(figure.add_subplot(grid[2, 2:4]), statistics)
    _images(figure.add_subplot(grid[2, 4:]), statistics)
    if points:
        _keypoints(figure.add_subplot(grid[3, :]), points, statistics)
    return figure


def _headline(s: Statistics) -> str:
    absent = len(s.classes_without_instance)
    parts = [
        f"{s.images:,} images ({s.empty_images:,} without an instance)",
        f"{s.instances:,} instances",
        f"{s.crowds:,} crowds",
        f"{len(s.classes):,} class"
        + "es" * (len(s.classes) != 1)
        + (f" ({absent:,} without an instance)" if absent else ""),
    ]
    return "   ·   ".join(parts)


def _classes(axes: Axes, s: Statistics) -> None:
    order = sorted(s.classes, key=lambda each: (-each.instances, each.row))
    shown = [each for each in order if each.instances][:_MOST_CLASSES]
    hidden = sum(1 for each in order if each.instances) - len(shown)
    title = "Instances of each class"
    if hidden:
        title += f" (the {len(shown)} most frequent; {hidden:,} more have fewer)"
    _style(axes, title, "", "instances (log scale)")
    if not shown:
        _nothing(axes, "no instance of any class")
        return
    places = np.arange(len(shown))
    counts = np.array([each.instances for each in shown])
    axes.bar(places, counts, width=0.76, color=_FILL, label="instances")
    axes.plot(
        places, [each.images for each in shown], "o", color=_DARK, ms=4.5, label="images with one"
    )
    crowds = [(place, each.crowds) for place, each in enumerate(shown) if each.crowds]
    if crowds:
        axes.plot(*zip(*crowds, strict=True), "x", color=_MARK, ms=6, mew=1.6, label="crowds")
    axes.set_yscale("log")
    axes.set_ylim(0.7, counts.max() * (2.2 if len(shown) <= 40 else 1.6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    width = max(len(shown), 8)
    axes.set_xlim((len(shown) - width) / 2 - 0.6, (len(shown) + width) / 2 - 0.4)
    names = [_plain(_short(each.name)) for each in shown]
    longest = max(len(name) for name in names)
    steep = len(shown) > 14 or longest * width > 150
    size = 11 if len(shown) <= 40 else max(5.5, 8.5 * min(1, 80 / len(shown)))
    if steep:
        size = min(size, _NAME_ROOM / longest)
    axes.set_xticks(places, names, fontsize=size)
    axes.tick_params(axis="x", rotation=90 if steep else 0, length=0)
    if len(shown) <= 60:
        for place, count in zip(places, counts.tolist(), strict=True):
            axes.annotate(
                _compact(count), (place, count), (0, 4), textcoords="offset points",
                ha="center", fontsize=9 if len(shown) <= 40 else 8, color=_INK,
            )  # fmt: skip
    axes.legend(loc="upper right", fontsize=10, ncols=3, frameon=False, borderaxespad=0.1)


def _sizes(axes: Axes, s: Statistics) -> None:
    scale = f"shorter side {s.short_edge}, longer at most {s.max_size}"
    _style(axes, f"Size of instances in training ({scale})", "", "instances")
    if not s.sizes_training:
        _nothing(axes, "no instance with an area in an image of known size")
        return
    # The image may be of any size: leave out empty bins at both ends.
    edges = _finite_edges(s.sizes_training_histogram, first=1.0)
    _bars(axes, edges, s.sizes_training_histogram.counts, "in training")
    before = s.sizes_histogram.counts
    axes.stairs(before, edges, color=_DARK, linewidth=1.5, label="in the file")
    axes.set_xscale("log", base=2)
    used = np.flatnonzero(np.array(before) + np.array(s.sizes_training_histogram.counts))
    low = min(edges[used[0]], STRIDES[0] / 2)
    axes.set_xlim(low, max(edges[used[-1] + 1], 128.0))
    axes.xaxis.set_major_locator(FixedLocator([2.0**k for k in range(12)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    top = axes.get_ylim()[1] * 1.22
    axes.set_ylim(0, top)
    for level, stride in enumerate(STRIDES, start=2):
        axes.axvline(stride, ymax=0.86, color=_MARK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(stride, top * 0.87, f"P{level}", ha="center", color=_MARK, fontsize=10)
    axes.text(
        STRIDES[2], top * 0.945, "one cell of each level", ha="center", color=_MARK, fontsize=10
    )
    small, medium, large = (_share(n, s.instances) for n in s.coco_sizes_training.values())
    axes.set_xlabel(
        f"square root of the area, pixels; in training {small} are small (below {SMALL:g}), "
        f"{medium} medium (below {MEDIUM:g}), {large} large"
    )
    axes.legend(loc="upper right", fontsize=10, ncols=2, frameon=False, borderaxespad=0.1)


def _per_image(axes: Axes, s: Statistics) -> None:
    _style(axes, "Instances per image", "instances", "images")
    histogram = s.per_image_histogram
    used = [place for place, count in enumerate(histogram.counts) if count]
    if not used:
        _nothing(axes, "no image")
        return
    shown = range(max(used[-1], 3) + 1)
    beyond = [histogram.edges[place] > DETECTION_CAP for place in shown]
    colours = [_MARK if far else _GRID if not place else _FILL for place, far in enumerate(beyond)]
    axes.bar(
        shown, [histogram.counts[place] for place in shown], width=0.86, color=colours,
        edgecolor=[_GREY if not place else "none" for place in shown], linewidth=0.8,
    )  # fmt: skip
    axes.set_xticks(shown, [_interval(histogram, place) for place in shown], fontsize=9.5)
    axes.tick_params(axis="x", rotation=90 if len(shown) > 8 else 0, length=0)
    _whole_numbers(axes)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    note = f"mean {s.per_image['mean']:.1f}, median {s.per_image['median']:g}"
    if s.images_beyond_cap:
        note += (
            f"\n{s.images_beyond_cap:,} images have more than {DETECTION_CAP},"
            f"\nthe detections an image may have"
        )
    else:
        note += f"\nnone above the {DETECTION_CAP} detections\nan image may have"
    _note(axes, note)


def _aspects(axes: Axes, s: Statistics) -> None:
    _style(axes, "Shape of boxes", "width / height", "instances")
    if not s.aspects:
        _nothing(axes, "no box")
        return
    edges = _finite_edges(s.aspects_histogram, first=1 / 13)
    _bars(axes, edges, s.aspects_histogram.counts)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([2.0**k for k in range(-3, 4)]))
    axes.xaxis.set_minor_locator(NullLocator())
    names = {2.0**-k: f"1/{2**k}" for k in range(1, 4)}
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: names.get(v, f"{v:g}")))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    for anchor in (0.5, 1.0, 2.0):
        axes.axvline(anchor, ymax=0.86, color=_MARK, linewidth=1, linestyle=(0, (4, 3)))
    top = axes.get_ylim()[1]
    axes.text(1.0, top * 0.89, "the anchors' three", ha="center", color=_MARK, fontsize=10)
    for place, word, side in ((0.01, "tall", "left"), (0.985, "wide", "right")):
        axes.text(place, 0.89, word, transform=axes.transAxes, ha=side, color=_GREY, fontsize=10)


def _box_fill(axes: Axes, s: Statistics) -> None:
    _style(axes, "Share of its box that an instance covers", "area / box area", "instances")
    if not s.box_fill:
        _nothing(axes, "no instance with an area and a box")
        return
    edges = np.array(s.box_fill_histogram.edges)
    edges[-1] = 1.05
    _bars(axes, edges, s.box_fill_histogram.counts)
    axes.set_xlim(0, 1.05)
    ticks = [0, 0.25, 0.5, 0.75, 1.0]
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    _note(axes, f"median {s.box_fill['median']:.0%}; of the image {_tiny(s.image_share)}")


def _tiny(share: dict[str, float]) -> str:
    return f"{share['median']:.2%}" if share else "unknown"


def _images(axes: Axes, s: Statistics) -> None:
    _style(axes, "Size of images", "width, pixels", "height, pixels")
    if not s.common_sizes:
        _nothing(axes, "no image with a size")
        return
    heights, widths, counts = np.array(s.common_sizes).T
    limit = 1.12 * max(heights.max(), widths.max())
    axes.plot([0, limit], [0, limit], color=_GREY, linewidth=0.8, linestyle=(0, (2, 3)))
    area = 30 + 900 * counts / counts.max()
    axes.scatter(widths, heights, area, color=_FILL, edgecolor=_DARK, alpha=0.55, linewidth=0.8)
    axes.set_xlim(0, limit)
    axes.set_ylim(0, limit)
    height, width, count = s.common_sizes[0]
    number = "one size" if s.different_sizes == 1 else f"{s.different_sizes:,} sizes"
    note = f"{number}; most are {width} × {height}" if s.different_sizes > 1 else ""
    note = note or f"all {count:,} are {width} × {height}"
    axes.text(
        0.985, 0.03, note + "\nabove the line: portrait", transform=axes.transAxes,
        ha="right", va="bottom", fontsize=10, color=_INK,
    )  # fmt: skip


def _keypoints(axes: Axes, points: Sequence[KeypointCount], s: Statistics) -> None:
    title = "Keypoints labelled"
    if len(s.keypoints) > len(points):
        title += f" (the first {len(points)} of {len(s.keypoints)})"
    _style(axes, title, "", "instances")
    classes = {point.class_name for point in points}
    places = np.arange(len(points))
    axes.bar(places, [p.labelled for p in points], width=0.76, color=_FILL, label="labelled")
    axes.bar(places, [p.visible for p in points], width=0.4, color=_DARK, label="visible")
    names = [p.name if len(classes) == 1 else f"{p.class_name}: {p.name}" for p in points]
    labels = [_plain(_short(name.replace("_", " "))) for name in names]
    axes.set_xticks(places, labels, fontsize=10.5, rotation=35, ha="right", rotation_mode="anchor")
    _whole_numbers(axes)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
    axes.legend(loc="upper right", fontsize=10, ncols=2, frameon=False)


def _bars(axes: Axes, edges: np.ndarray, counts: Sequence[int], label: str | None = None) -> None:
    axes.bar(
        edges[:-1], counts, np.diff(edges), align="edge", color=_FILL, edgecolor="white",
        linewidth=0.6, label=label,
    )  # fmt: skip
    _whole_numbers(axes)


def _whole_numbers(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _finite_edges(histogram: Histogram, first: float) -> np.ndarray:
    """The edges for a log axis: `first` for 0, one more step for infinity."""
    edges = np.array(histogram.edges)
    edges[0], edges[-1] = first, edges[-2] ** 2 / edges[-3]
    return edges


def _interval(histogram: Histogram, place: int) -> str:
    low, high = histogram.edges[place], histogram.edges[place + 1]
    if math.isinf(high):
        return f"≥{low:.0f}"
    return f"{low:.0f}" if high - low == 1 else f"{low:.0f}-{high - 1:.0f}"


def _style(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=13, weight="bold", color=_INK, pad=10)
    axes.set_xlabel(x, fontsize=11, color=_GREY)
    axes.set_ylabel(y, fontsize=11, color=_GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors=_INK, labelsize=10)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _note(axes: Axes, text: str) -> None:
    axes.text(
        0.985, 0.985, text, transform=axes.transAxes, ha="right", va="top", fontsize=10,
        color=_INK, linespacing=1.35,
    )  # fmt: skip


def _nothing(axes: Axes, text: str) -> None:
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=12,
        color=_GREY,
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])


def _share(number: int, of: int) -> str:
    return f"{number / of:.0%}" if of else "0%"


def _compact(number: int) -> str:
    return f"{number:,}" if number < 10_000 else f"{number / 1000:,.0f}k"


def _short(name: str, longest: int = 22) -> str:
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _plain(text: str) -> str:
    """A dollar would start a formula."""
    return text.replace("$", r"\$")

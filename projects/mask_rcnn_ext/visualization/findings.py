"""A picture of each finding of `data check`, cut out around the object, and a page of them all.

Frame: pixels of the image, continuous, x to the right, y down.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..data.checks import Finding, Report
from ..data.checks.segmentations import window_of
from ..data.coco_table import FLAT, CocoTable
from ..data.mappers.images import read_image
from ..data.statistics import class_name
from ..files import atomic_write
from .browse_cards import skeleton_of
from .draw import Drawn, draw_instances
from .html import picture_uri, render_page

GENERATOR = "mask-rcnn-ext data check"

_TILE = 480  # longest side of a picture, pixels
_MOST_ENLARGED = 8.0
_MARGIN = 0.5  # around an object, part of its longer side
_LEAST_MARGIN = 24.0
_BEYOND = 0.5  # how much of the outside is shown, part of the image's side
_FARTHEST = 1e5  # of a keypoint that is drawn, pixels
_GREY = 110  # where there is no picture
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Tile:
    """One entry of the page: the finding's words, its file beside the page, and the picture."""

    severity: str
    code: str
    line: str
    file: str
    source: str


def draw_findings(
    report: Report,
    image_root: str | None,
    folder: str | Path,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write `<severity>-<code>-<image id>-<annotation id>.jpg` for each, and `index.html`.

    Findings that are about no image, such as a class without objects, stand on the page as text.

    Args:
        report: what the check found
        image_root: folder of the images
        folder: where the pictures go; it is there already
        limit: pictures of each kind at most, None for all
        progress: called with (pictures drawn, of how many)
    Returns:
        how many pictures were written
    """
    folder = Path(folder)
    findings = list(report.findings(limit))
    drawer = _Drawer(report.table, image_root)
    names = _file_names(findings)
    tiles: dict[int, Tile] = {}
    # Image by image, so that each is read once.
    order = sorted(range(len(findings)), key=lambda i: findings[i].image_row)
    for done, index in enumerate(order, 1):
        finding = findings[index]
        source = ""
        if finding.image_row >= 0:
            picture = drawer.draw(finding)
            encoded = cv2.imencode(".jpg", picture[:, :, ::-1])[1]
            with atomic_write(folder / names[index]) as file:
                file.write(encoded.tobytes())
            source = picture_uri(picture, _TILE)
        name = names[index] if source else ""
        line = finding.line(with_file=False)
        tiles[index] = Tile(finding.severity, finding.code, line, name, source)
        if progress:
            progress(done, len(order))
    left_out = {
        code: count - min(count, limit)
        for code, count in report.counts_by_code().items()
        if limit is not None and count > limit
    }
    page = render_page(
        "findings",
        title=f"Findings of {Path(report.table.path).name}",
        generator=GENERATOR,
        file=report.table.path,
        tiles=[tiles[index] for index in range(len(findings))],
        found=report.summary(),
        left_out=left_out,
    )
    with atomic_write(folder / "index.html") as file:
        file.write(page)
    return sum(bool(tile.file) for tile in tiles.values())


class _Drawer:
    """Cuts objects out of images; the last image is kept."""

    def __init__(self, table: CocoTable, image_root: str | None):
        self._table = table
        self._root = image_root or ""
        self._row = -1
        self._image = np.zeros((0, 0, 3), np.uint8)

    def draw(self, finding: Finding) -> np.ndarray:
        """(h, w, 3) uint8 RGB."""
        image = self._read(finding.image_row)
        size = (image.shape[0], image.shape[1])
        if finding.annotation_row >= 0:
            rows = [finding.annotation_row]
        else:
            rows = self._table.annotations_of(finding.image_row).tolist()
        instances = [self._instance(row, size) for row in rows]
        if finding.annotation_row < 0 or not instances:
            return _shown(image, instances, (0.0, 0.0, float(size[1]), float(size[0])))
        return _shown(image, instances, _extent(instances[0], size))

    def _read(self, row: int) -> np.ndarray:
        if row == self._row:
            return self._image
        self._row = row
        name = self._table.file_name(row)
        height, width = np.clip(self._table.image_sizes[row], 0, 4096).tolist()
        try:
            if not name:
                raise FileNotFoundError
            self._image = np.ascontiguousarray(read_image(os.path.join(self._root, name), "RGB"))
        except _UNREADABLE:
            shape = (height, width, 3) if height > 0 and width > 0 else (240, 320, 3)
            self._image = np.full(shape, _GREY, np.uint8)
            text = "no picture"
            cv2.putText(
                self._image, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1
            )
        return self._image

    def _instance(self, row: int, size: tuple[int, int]) -> Drawn:
        table = self._table
        segmentation = table.segmentation(row)
        if table.segmentation_kind[row] == FLAT:
            segmentation = [segmentation]
        window = None if segmentation is None else window_of(segmentation, size)
        mask = None
        if window is not None and window.bits.size:
            mask = np.zeros(size, bool)
            height, width = window.bits.shape
            mask[window.top : window.top + height, window.left : window.left + width] = window.bits
        category = int(table.category_of[row])
        label = class_name(table, category) if category >= 0 else "unknown class"
        identity = table.annotation_ids[row]
        keypoints = _keypoints(table.keypoints(row))
        points = 0 if keypoints is None else len(keypoints)
        bones = skeleton_of(table, category) if category >= 0 else []
        return Drawn(
            mask=mask,
            box=_box(table.boxes[row], size),
            label=f"{label[:24]} {'' if identity is None else identity}".strip(),
            class_index=max(category, 0),
            keypoints=keypoints,
            skeleton=[bone for bone in bones if max(bone) < points],
        )


def _keypoints(values: Any) -> np.ndarray | None:
    """(K, 3) x, y, visibility; None where they cannot be drawn."""
    if not isinstance(values, list) or not values or len(values) % 3:
        return None
    if not all(type(value) in (int, float) and abs(value) < _FARTHEST for value in values):
        return None
    # COCO's are pixel indices; a picture's frame is continuous.
    return np.array(values, np.float64).reshape(-1, 3) + (0.5, 0.5, 0)


def _box(box: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1, cut far outside of the image; all 0 where there is none."""
    if not np.isfinite(box).all():
        return 0.0, 0.0, 0.0, 0.0
    height, width = size
    x, y, w, h = box.tolist()
    corners = np.array([min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h)])
    low = np.array([-width, -height] * 2) * _BEYOND
    high = np.array([width, height] * 2) * (1 + _BEYOND)
    x0, y0, x1, y1 = np.clip(corners, low, high).tolist()
    return x0, y0, x1, y1


def _extent(instance: Drawn, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """What to show around one object, in the frame of the image; may leave it."""
    boxes = [instance.box] if instance.box[2] > instance.box[0] else []
    if instance.mask is not None and instance.mask.any():
        rows, columns = (np.flatnonzero(instance.mask.any(axis=axis)) for axis in (1, 0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    if not boxes:
        return 0.0, 0.0, float(size[1]), float(size[0])
    corners = np.array(boxes, np.float64)
    (x0, y0), (x1, y1) = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(_LEAST_MARGIN, _MARGIN * max(x1 - x0, y1 - y0))
    height, width = size
    left, top = max(x0 - margin, min(0.0, x0)), max(y0 - margin, min(0.0, y0))
    right, bottom = min(x1 + margin, max(width, x1)), min(y1 + margin, max(height, y1))
    return left, top, right, bottom


def _shown(
    image: np.ndarray, instances: Sequence[Drawn], extent: tuple[float, float, float, float]
) -> np.ndarray:
    """The part of the image in `extent`, grey outside of it, with the instances on top."""
    left, top = int(np.floor(extent[0])), int(np.floor(extent[1]))
    right = max(left + 1, int(np.ceil(extent[2])))
    bottom = max(top + 1, int(np.ceil(extent[3])))
    canvas = np.full((bottom - top, right - left, 3), _GREY, np.uint8)
    ours = (slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0)))
    part = image[ours]
    y, x = max(-top, 0), max(-left, 0)
    canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    moved = []
    for one in instances:
        mask = None
        if one.mask is not None:
            mask = np.zeros(canvas.shape[:2], bool)
            cut = one.mask[ours]
            mask[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
        keypoints = one.keypoints
        if keypoints is not None:
            keypoints = keypoints - (left, top, 0)
        x0, y0, x1, y1 = one.box
        box = (x0 - left, y0 - top, x1 - left, y1 - top)
        moved.append(Drawn(mask, box, one.label, one.class_index, keypoints, one.skeleton))
    scale = min(_TILE / max(canvas.shape[:2]), _MOST_ENLARGED)
    # A sliver of an image must keep a pixel of its shorter side.
    scale = max(scale, 1 / min(canvas.shape[:2]))
    return draw_instances(canvas, moved, scale=scale)


def _file_names(findings: Sequence[Finding]) -> list[str]:
    """A name for each; a number tells those with the same ids apart."""
    seen: Counter[str] = Counter()
    names = []
    for finding in findings:
        ids = [finding.image_id]
        if finding.annotation_row >= 0:
            ids.append(finding.annotation_id)
        words = [re.sub(r"[^A-Za-z0-9]+", "_", str(value))[:40] for value in ids]
        stem = "-".join([finding.severity, finding.code, *words])
        seen[stem] += 1
        names.append(f"{stem}.jpg" if seen[stem] == 1 else f"{stem}-{seen[stem]}.jpg")
    return names

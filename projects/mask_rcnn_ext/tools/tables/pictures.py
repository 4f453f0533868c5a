"""`pictures.webp`: best, median and worst image of a run, ground truth above prediction.

Frame: pixels of the image, x to the right, y down.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data.detection_utils import read_image
from pycocotools.coco import COCO

from ...errors import UserError
from ...paper.matches_file import Matches, records_of
from ...visualization.draw import draw_instances
from ...visualization.samples import drawn_annotations
from .matches import EvaluatedSet

SHOWN = 0.5  # score from which on detections are drawn and judged
LONGEST = 256  # longest side of one picture, px
LIMIT = 60_000  # bytes of the file
_LINE = 20  # height of a caption, px
_GAP = 6
_QUALITIES = (75, 60, 45, 30, 15)  # of the first that is below LIMIT

Json = dict[str, Any]


@dataclass(frozen=True)
class Extreme:
    """
    Attributes:
        word: best, median or worst
        image: index, by ascending id
        share: of its decisions that are right, 0 to 1
    """

    word: str
    image: int
    share: float


def shares_of(matches: Matches) -> np.ndarray:
    """(I,) float64: right / (right + wrong + missed), mean over the thresholds; NaN: no objects."""
    records = records_of(matches)
    shown = records.score >= SHOWN
    objects = np.bincount(records.counted_image, minlength=records.num_images)
    shares = np.full((len(records.thresholds), records.num_images), np.nan)
    for row, right, wrong in zip(shares, records.right, records.wrong, strict=True):
        found, false = (
            np.bincount(records.image[flags & shown], minlength=records.num_images)
            for flags in (right, wrong)
        )
        np.divide(found, false + objects, out=row, where=objects > 0)
    return shares.mean(axis=0)


def extremes(matches: Matches) -> list[Extreme]:
    """Best, median and worst, of equals the lowest id first; fewer where there are fewer images."""
    shares = shares_of(matches)
    order = [int(i) for i in np.argsort(-shares, kind="stable") if not np.isnan(shares[i])]
    chosen: dict[int, str] = {}
    for word, place in (("best", 0), ("worst", len(order) - 1), ("median", len(order) // 2)):
        if order:
            chosen.setdefault(place, word)
    return [
        Extreme(word, order[place], float(shares[order[place]]))
        for place, word in sorted(chosen.items())
    ]


def draw_strip(chosen: Sequence[Extreme], tested: EvaluatedSet, results: Iterable[Json]) -> bytes:
    """
    Args:
        chosen: a column each, at least one
        tested: the set
        results: detections in COCO's results format
    Returns:
        a WebP file
    Raises:
        UserError: an image that cannot be read
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tested.json_file)
    image_ids = list(tested.truth.image_rows)
    rows = [truth.imgs[image_ids[one.image]] for one in chosen]
    found: dict[Any, list[Json]] = {row["id"]: [] for row in rows}
    for result in results:
        if result["image_id"] in found and result["score"] >= SHOWN:
            found[result["image_id"]].append(result)
    columns = []
    for one, row in zip(chosen, rows, strict=True):
        image = _read(Path(tested.image_root) / row["file_name"])
        title = f"{one.word}: image {row['id']}"
        columns.append(
            (
                _tile(image, truth.imgToAnns[row["id"]], truth, row, title),
                _tile(image, found[row["id"]], truth, row, f"found, {100 * one.share:.0f} % right"),
            )
        )
    return _encoded(_sheet(columns))


def _read(path: Path) -> np.ndarray:
    try:
        return np.asarray(read_image(str(path), "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be drawn: {error}") from error


def _tile(
    image: np.ndarray, annotations: Sequence[Json], truth: COCO, row: Mapping[str, Any], title: str
) -> np.ndarray:
    """(_LINE + h, w, 3): the picture, enlarged or shrunk, under its caption."""
    # The colour tells the class; a label would hide half of a picture of this size.
    instances = [replace(one, label="") for one in drawn_annotations(annotations, truth, row)]
    picture = draw_instances(image, instances, scale=LONGEST / max(image.shape[:2]))
    line = np.full((_LINE, LONGEST, 3), 255, np.uint8)
    cv2.putText(line, title, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([line, _padded(picture, picture.shape[0], LONGEST)])


def _sheet(columns: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Columns side by side, each row as high as its highest picture."""
    rows = []
    for row in zip(*columns, strict=True):
        height = max(tile.shape[0] for tile in row)
        rows.append(np.hstack([_padded(tile, height, LONGEST + _GAP) for tile in row]))
    return np.vstack(rows)[:, :-_GAP]


def _padded(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """White to the right and below."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas


def _encoded(picture: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    content = b""
    for quality in _QUALITIES:
        content = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        if len(content) <= LIMIT:
            break
    return content

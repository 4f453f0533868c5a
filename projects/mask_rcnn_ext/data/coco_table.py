"""A COCO annotation file as columns: read once, in a fraction of the memory of its objects.

Letters: I images, A annotations, C categories. Rows are in the file's order. Nothing is judged or
dropped here: what has another type than COCO's stays visible as such (-1, NaN, or an object), and
`data.checks` says what is wrong with it. Masks and keypoints stay JSON text until they are asked
for; they are most of a file, and a process that reads one image needs those of one image.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import DataError

NO_SEGMENTATION, POLYGONS, RLE, RLE_LIST, FLAT, OTHER = range(6)

_CHUNK = 16384  # annotations parsed at once: bounds the memory beside the columns
BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n"
_COUNTS = re.compile(rb'"counts"\s*:\s*(["\[])')
_LARGEST = 2**63
_NULL = msgspec.Raw(b"null")

Progress = Callable[[int, int], None]


class _Image(msgspec.Struct, gc=False):
    id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class _Annotation(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = 0
    ignore: Any = 0
    num_keypoints: Any = None
    segmentation: msgspec.Raw = _NULL
    keypoints: msgspec.Raw = _NULL


class Texts:
    """Many small texts in one buffer, so that worker processes share its pages unchanged."""

    def __init__(self, texts: Sequence[bytes]):
        self._bytes = b"".join(texts)
        self._ends = np.cumsum([len(text) for text in texts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        end = int(self._ends[index])
        return self._bytes[int(self._ends[index - 1]) if index else 0 : end]

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """All texts of several buffers, in their order."""
        whole = cls([])
        whole._bytes = b"".join(part._bytes for part in parts)
        starts = np.cumsum([0, *(len(part._bytes) for part in parts)])
        ends = [part._ends + start for part, start in zip(parts, starts, strict=False)]
        whole._ends = np.concatenate([np.zeros(0, np.int64), *ends])
        return whole


class CocoTable:
    """One annotation file in columns; see `read_coco_table`.

    Attributes:
        path: the file
        sha256: of its bytes, hexadecimal
        keys: its sections
        categories: as in the file
        image_ids: (I,) int64, or object if one of them is no int (as in the file, None if missing)
        image_sizes: (I, 2) int64, height and width in pixels; -1 for what is no positive whole
            number
        annotation_ids, annotation_image_ids, annotation_category_ids: (A,), as `image_ids`
        image_of: (A,) int64, row of the image, -1 if no image has the id. Ids are compared with
            their type (1 is not "1"); where images share an id it is the first one
        category_of: (A,) int64, row of the category, in the same way
        boxes: (A, 4) float64, x, y, width, height in pixels; NaN, all four, for anything else
            than four numbers
        areas: (A,) float64, pixels; NaN for anything else than a number
        crowd: (A,) int8, 0 or 1; -1 for anything else than 0, 1, false, true
        ignored: (A,) bool, whether a key "ignore" (not COCO's own) is set
        num_keypoints: (A,) int64, -1 for anything else than a whole number
        segmentation_kind: (A,) int8, NO_SEGMENTATION (missing, null or an empty list), POLYGONS
            (a list of lists), RLE (counts are a string), RLE_LIST (a list), FLAT (one list of
            numbers), or OTHER
    """

    def __init__(self, path: str, sha256: str, keys: Sequence[str], categories: list[Any]):
        self.path = path
        self.sha256 = sha256
        self.keys = tuple(keys)
        self.categories: list[dict[str, Any]] = categories
        self.image_ids: np.ndarray = np.zeros(0, np.int64)
        self.image_sizes: np.ndarray = np.zeros((0, 2), np.int64)
        self.annotation_ids: np.ndarray = np.zeros(0, np.int64)
        self.annotation_image_ids: np.ndarray = np.zeros(0, np.int64)
        self.annotation_category_ids: np.ndarray = np.zeros(0, np.int64)
        self.image_of: np.ndarray = np.zeros(0, np.int64)
        self.category_of: np.ndarray = np.zeros(0, np.int64)
        self.boxes: np.ndarray = np.zeros((0, 4))
        self.areas: np.ndarray = np.zeros(0)
        self.crowd: np.ndarray = np.zeros(0, np.int8)
        self.ignored: np.ndarray = np.zeros(0, bool)
        self.num_keypoints: np.ndarray = np.zeros(0, np.int64)
        self.segmentation_kind: np.ndarray = np.zeros(0, np.int8)
        self._file_names = Texts([])
        self._segmentations = Texts([])
        self._keypoints = Texts([])

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_annotations(self) -> int:
        return len(self.annotation_ids)

    def file_name(self, image: int) -> str:
        """As in the file; "" if there is none or it is no text."""
        return self._file_names[image].decode("utf-8", "surrogatepass")

    def segmentation_text(self, annotation: int) -> bytes:
        """JSON; b"" if there is none."""
        return self._segmentations[annotation]

    def segmentation(self, annotation: int) -> Any:
        """As in the file, None if there is none."""
        return _parse(self._segmentations[annotation])

    def keypoints_text(self, annotation: int) -> bytes:
        """JSON; b"" if there are none."""
        return self._keypoints[annotation]

    def keypoints(self, annotation: int) -> Any:
        """As in the file, None if there are none."""
        return _parse(self._keypoints[annotation])

    def annotations_of(self, image: int) -> np.ndarray:
        """Rows of the image's annotations, in the file's order."""
        order, starts = self._by_image
        return order[starts[image] : starts[image + 1]]

    @functools.cached_property
    def _by_image(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.image_of, kind="stable")
        starts = np.searchsorted(self.image_of[order], np.arange(self.num_images + 1))
        return order, starts


def read_coco_table(json_file: str | Path, progress: Progress | None = None) -> CocoTable:
    """
    Args:
        json_file: an annotation file with the sections images and categories; annotations may be
            missing (a test set)
        progress: called with (annotations done, of how many)
    Raises:
        DataError: no such file, no JSON, another kind of file
    """
    path = str(json_file)
    try:
        content = Path(json_file).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    sections = sections_of(content.removeprefix(BOM), path)
    for section in ("images", "categories"):
        if section not in sections:
            raise DataError(
                f"{path} lacks the section {section!r}; it has: {', '.join(sorted(sections))}"
            )
    categories = objects_of(sections["categories"], dict[str, Any], "categories", path)
    table = CocoTable(path, hashlib.sha256(content).hexdigest(), list(sections), categories)
    _read_images(table, objects_of(sections["images"], _Image, "images", path))
    entries = objects_of(sections.get("annotations", _NULL), msgspec.Raw, "annotations", path)
    _read_annotations(table, entries, path, progress)
    image_rows = _rows_of(table.image_ids)
    category_rows = _rows_of(_ids([c.get("id") for c in table.categories]))
    table.image_of = _look_up(table.annotation_image_ids, image_rows)
    table.category_of = _look_up(table.annotation_category_ids, category_rows)
    return table


def sections_of(content: bytes, path: str) -> dict[str, msgspec.Raw]:
    try:
        if not content.isascii():
            content.decode()  # msgspec does not look at parts that stay text
        return msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Python's parser takes NaN and Infinity, which are no JSON but common; a NaN belongs into
        # a finding about its annotation, not into a message about the file.
        return _sections_of_python(content, path, error)


def _sections_of_python(content: bytes, path: str, first: Exception) -> dict[str, msgspec.Raw]:
    try:
        data = json.loads(content)
    except RecursionError as error:
        raise DataError(f"{path} nests too deep to be an annotation file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not JSON ({error}); its size is {len(content)} bytes. "
            "A download that broke off looks like this: fetch it again."
        ) from error
    if not isinstance(data, dict):
        raise DataError(
            f"{path} holds a JSON {type(data).__name__}, expected an object with "
            "images, annotations and categories; is it a results file?"
        ) from first
    return {str(key): _encode(value) for key, value in data.items()}


def _encode(value: Any) -> msgspec.Raw:
    """Python values as JSON, with each number that JSON lacks as null, but text where it was."""
    return msgspec.Raw(json.dumps(_without_nan(value)).encode())


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # "nan": no number, so that the columns show it as none
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    return value


def objects_of(raw: msgspec.Raw, kind: Any, section: str, path: str) -> list[Any]:
    if raw is _NULL:
        return []
    try:
        return msgspec.json.decode(raw, type=list[kind])
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{path}: section {section!r} is not a list of objects ({error})") from None


def _read_images(table: CocoTable, images: list[_Image]) -> None:
    table.image_ids = _ids([image.id for image in images])
    sides = [[_whole(image.height), _whole(image.width)] for image in images]
    table.image_sizes = np.array(sides, np.int64).reshape(-1, 2)
    table.image_sizes[table.image_sizes < 1] = -1
    table._file_names = Texts([_utf8(image.file_name) for image in images])


def _read_annotations(
    table: CocoTable, entries: list[msgspec.Raw], path: str, progress: Progress | None
) -> None:
    columns: list[dict[str, Any]] = []
    for start in range(0, len(entries), _CHUNK):
        chunk = entries[start : start + _CHUNK]
        joined = msgspec.Raw(b"[" + b",".join(chunk) + b"]")
        columns.append(_columns(objects_of(joined, _Annotation, "annotations", path)))
        if progress:
            progress(min(start + _CHUNK, len(entries)), len(entries))
    if not columns:
        return
    for name in ("annotation_ids", "annotation_image_ids", "annotation_category_ids"):
        parts = [column[name] for column in columns]
        if any(part.dtype == object for part in parts):
            parts = [part.astype(object) for part in parts]
        setattr(table, name, np.concatenate(parts))
    for name in ("boxes", "areas", "crowd", "ignored", "num_keypoints", "segmentation_kind"):
        setattr(table, name, np.concatenate([column[name] for column in columns]))
    table._segmentations = Texts.joined([column["segmentations"] for column in columns])
    table._keypoints = Texts.joined([column["keypoints"] for column in columns])


def _columns(entries: list[_Annotation]) -> dict[str, Any]:
    shapes = [_segmentation(bytes(entry.segmentation)) for entry in entries]
    keypoints = [bytes(entry.keypoints).translate(None, _WHITE) for entry in entries]
    return {
        "annotation_ids": _ids([entry.id for entry in entries]),
        "annotation_image_ids": _ids([entry.image_id for entry in entries]),
        "annotation_category_ids": _ids([entry.category_id for entry in entries]),
        "boxes": _boxes([entry.bbox for entry in entries]),
        "areas": np.array([_number(entry.area) for entry in entries], np.float64),
        "crowd": np.array([_flag(entry.iscrowd) for entry in entries], np.int8),
        "ignored": np.array([bool(entry.ignore) for entry in entries], bool),
        "num_keypoints": np.array([_whole(entry.num_keypoints) for entry in entries], np.int64),
        "segmentation_kind": np.array([kind for kind, _ in shapes], np.int8),
        "segmentations": Texts([text for _, text in shapes]),
        "keypoints": Texts([b"" if text == b"null" else text for text in keypoints]),
    }


def _segmentation(text: bytes) -> tuple[int, bytes]:
    """Its kind, and the text to keep: white space is half of a file that was written for eyes."""
    if text.startswith(b"{"):
        counts = _COUNTS.search(text)
        if not counts:
            return OTHER, text
        return (RLE, text) if counts[1] == b'"' else (RLE_LIST, text.translate(None, _WHITE))
    if not text.startswith(b"["):
        return (NO_SEGMENTATION, b"") if text == b"null" else (OTHER, text)
    if b'"' in text or b"{" in text:
        # Text between numbers, which may be a NaN that was written as one.
        return (POLYGONS if text[1:].lstrip(_WHITE).startswith(b"[") else OTHER), text
    text = text.translate(None, _WHITE)
    if text == b"[]":
        return NO_SEGMENTATION, b""
    return (POLYGONS if text.startswith(b"[[") else FLAT), text


def _boxes(boxes: list[Any]) -> np.ndarray:
    try:
        numbers = msgspec.convert(boxes, list[tuple[float, float, float, float]], strict=True)
        return np.array(numbers, np.float64).reshape(-1, 4)
    except msgspec.ValidationError:
        return np.array([_box(box) for box in boxes], np.float64).reshape(-1, 4)


def _box(box: Any) -> list[float]:
    if isinstance(box, list) and len(box) == 4:
        numbers = [_number(value) for value in box]
        if not any(math.isnan(value) for value in numbers):
            return numbers
    return [math.nan] * 4


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) else math.nan


def _whole(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -_LARGEST <= value < _LARGEST else -1


def _flag(value: Any) -> int:
    return int(value) if type(value) in (int, bool) and value in (0, 1) else -1


def _ids(values: list[Any]) -> np.ndarray:
    if all(type(value) is int and -_LARGEST <= value < _LARGEST for value in values):
        return np.array(values, np.int64)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _utf8(value: Any) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""


def _rows_of(ids: np.ndarray) -> dict[Any, int]:
    """(type, id) -> first row; 1, True and 1.0 are equal in Python and different in a file."""
    rows: dict[Any, int] = {}
    if ids.dtype != object:
        for row, value in enumerate(ids.tolist()):
            rows.setdefault((int, value), row)
        return rows
    for row, value in enumerate(ids):
        if isinstance(value, int | str | float):
            rows.setdefault((type(value), value), row)
    return rows


def _look_up(ids: np.ndarray, rows: dict[Any, int]) -> np.ndarray:
    if ids.dtype != object:
        found = (rows.get((int, value), -1) for value in ids.tolist())
    else:
        found = (
            rows.get((type(value), value), -1) if isinstance(value, int | str | float) else -1
            for value in ids
        )
    return np.fromiter(found, np.int64, len(ids))


def _parse(text: bytes) -> Any:
    return msgspec.json.decode(text) if text else None

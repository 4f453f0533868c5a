"""The teacher's predictions, a file for every few images: a run that was stopped goes on with them.

A part is named after its images, and its folder after the teacher, so that predictions of another
model, of other views or of other images are never taken for these. Whichever process writes a part
writes the same, so that several can share the work.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from detectron2.config import CfgNode
from pycocotools import mask as coco_mask

from ...data.scenes.progress import Progress
from ...errors import DataError, UserError
from ...files import atomic_write
from ..prediction import Prediction
from ..provenance import code_version, config_hash
from .images import Unlabelled

PART = 16  # images: what a run that is stopped loses at most
_KEY_DIGITS = 12


class Teacher(Protocol):
    """What predicts, such as a `ViewsTeacher`."""

    def __call__(self, one: Unlabelled, /) -> Prediction: ...


@dataclass(frozen=True)
class Part:
    """Some images, and the file with their predictions."""

    images: list[Unlabelled]
    path: Path

    @property
    def is_done(self) -> bool:
        return self.path.exists()

    def read(self) -> dict[str, Any]:
        """
        Returns:
            "commit" of the code; "images" as in an annotation file; "annotations" as
            `Prediction.to_coco` has them, each with its "area" and the box around its mask;
            "failed", a message for each image that could not be used
        Raises:
            DataError: the file is not what was written
        """
        try:
            content: dict[str, Any] = msgspec.json.decode(self.path.read_bytes())
            return {key: content[key] for key in ("commit", "images", "annotations", "failed")}
        except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} cannot be read as predictions ({error}); remove it, and the same "
                "command predicts its images anew"
            ) from error


def teacher_key(cfg: CfgNode, *contents: str) -> str:
    """Names a teacher.

    Args:
        cfg: views included
        contents: checksums of its weights and of what else it reads
    """
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.WEIGHTS = ""  # where the file lies does not matter
    text = " ".join([config_hash(plain), *contents])
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def parts_of(images: Sequence[Unlabelled], folder: Path, size: int) -> list[Part]:
    """
    Args:
        images: in the order of the annotation file
        folder: the teacher's, of all parts
        size: images of a part
    """
    return [
        Part(
            list(images[start : start + size]), folder / _name(start, images[start : start + size])
        )
        for start in range(0, len(images), size)
    ]


def _name(start: int, images: Sequence[Unlabelled]) -> str:
    text = json.dumps([(one.id, one.file_name, str(one.path.absolute())) for one in images])
    return f"{start:07d}_{hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]}.json"


def predict_parts(
    teacher: Teacher, parts: Sequence[Part], category_ids: Sequence[int | str], *, progress: bool
) -> None:
    """Make the parts that are not there yet.

    Args:
        category_ids: of the classes, in the order of the teacher's outputs
        progress: whether to say on stderr how far it is
    Raises:
        UserError: a part cannot be written
    """
    missing = [part for part in parts if not part.is_done]
    if not missing:
        return
    commit = code_version()["commit"]
    line = Progress("images", sum(len(part.images) for part in missing), progress)
    try:
        for part in missing:
            content: dict[str, Any] = {"commit": commit, "images": [], "annotations": []}
            content["failed"] = []
            for one in part.images:
                _predict(teacher, one, category_ids, content)
                line.advance()
            _write(part.path, content)
    finally:
        line.close()


def _predict(
    teacher: Teacher, one: Unlabelled, category_ids: Sequence[Any], content: dict[str, Any]
) -> None:
    try:
        found = teacher(one)
    except DataError as error:  # it does not decode: the others do
        content["failed"].append(str(error))
        return
    height, width = found.image_size
    image = {"id": one.id, "file_name": one.file_name, "height": height, "width": width}
    content["images"].append(image)
    for entry in dataclasses.replace(found, category_ids=category_ids).to_coco(one.id):
        area = entry["bbox"][2] * entry["bbox"][3]
        if "segmentation" in entry:
            # A label's box is that of its mask, as in COCO; the two heads need not agree.
            entry["bbox"] = coco_mask.toBbox(entry["segmentation"]).tolist()
            area = float(coco_mask.area(entry["segmentation"]))
        if area > 0:  # an object without a pixel can be no label
            content["annotations"].append({**entry, "area": area})


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(msgspec.json.encode(content))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error

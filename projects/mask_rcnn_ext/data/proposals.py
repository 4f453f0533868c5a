"""Files of precomputed proposals: read without running anything in them, checked before a run.

Shape shorthand: N images of the file, P proposals of one image (each image has its own P).

A file is a pickled dict, as Detectron2's COCO evaluator writes it (`box_proposals.pkl`):
"ids", N image ids; "boxes", N arrays (P, 4); "objectness_logits", N arrays (P,); "bbox_mode", 0 for
(x0, y0, x1, y1) or 1 for (x, y, width, height), in pixels of the original image. Detectron's own
files call the ids "indexes" and the logits "scores"; Detectron2 reads these too, and so do we.

Detectron2 unpickles such a file, and a pickle can run any code. Its reader comes after this check,
which lets pass what mask_rcnn_ext.pickles lets pass: numbers, text, plain containers and arrays.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..errors import DataError, UsageError, UserError
from ..pickles import Refused, load_pickle
from .checks import parse_annotations
from .registration import locate_dataset

_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
_OUTSIDE = 1.0  # pixels that a box may leave its image by; Detectron counted pixels, not edges
_DETECTRON_KEYS = {"indexes": "ids", "scores": "objectness_logits"}
_ADVICE = "docs/proposals.md has the command that writes it."


@dataclass(frozen=True)
class Proposals:
    """The content of one file.

    Args:
        ids: N image ids, as text (Detectron2 compares them as text)
        boxes: N arrays (P, 4) float, (x0, y0, x1, y1), pixels of the original image
        logits: N arrays (P,) float, objectness, any real number
    """

    ids: list[str]
    boxes: list[np.ndarray]
    logits: list[np.ndarray]


def check_proposal_files(
    names: Sequence[str], files: Sequence[str], *, split: str, topk: int
) -> None:
    """Refuse proposals that would end the run later or that belong to other images.

    A file without as many proposals as `topk` for any image gets a warning: the run would follow
    another protocol than its config says.

    Args:
        names: data sets, as in DATASETS.TRAIN or DATASETS.TEST, checked already
        files: DATASETS.PROPOSAL_FILES_TRAIN or ..._TEST, one a data set
        split: "TRAIN" or "TEST", for the messages
        topk: proposals of an image that are used, the best ones
    Raises:
        UsageError: another number of files than of data sets; a file that does not exist
        UserError: a file that cannot be fetched
        DataError: a file that cannot be read or does not fit its data set; names file and ids
    """
    key = f"DATASETS.PROPOSAL_FILES_{split}"
    if len(files) != len(names):
        raise UsageError(
            f"MODEL.LOAD_PROPOSALS is True, and {key} has {len(files)} files for the {len(names)} "
            f"data sets of DATASETS.{split} ({', '.join(names) or 'none'}); give one for each, in "
            f"their order. {_ADVICE}"
        )
    for name, file in zip(names, files, strict=True):
        proposals = load_proposals(_local(file, f"{key} (data set {name!r})"))
        location = locate_dataset(name)
        if location is not None:  # other formats are not looked into, as in data.checks
            _check_fits(proposals, file, name, location[0])
        most = max(map(len, proposals.boxes))
        if most < topk:
            logging.getLogger("mask_rcnn_ext").warning(
                "%s has at most %d proposals an image; "
                "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_%s asks for %d. "
                "If its images are not simply small, write it anew with "
                "MODEL.RPN.POST_NMS_TOPK_TEST %d",
                file,
                most,
                split,
                topk,
                topk,
            )


def load_proposals(file: str | Path) -> Proposals:
    """Read a proposal file; nothing in it is executed.

    Args:
        file: a local path
    Raises:
        DataError: no proposal file, or one that holds more than numbers, text and plain containers
    """
    try:
        with open(file, "rb") as stream:
            content = load_pickle(stream)
    except Refused as error:
        raise DataError(
            f"{file} was not read: besides numbers, text and plain containers it holds {error}, "
            f"and such a thing can execute code. {_ADVICE}"
        ) from error
    except Exception as error:  # whatever a broken file provokes
        raise DataError(
            f"{file} cannot be read as proposals ({type(error).__name__}: {error}); it has "
            f"{os.path.getsize(file)} bytes. Did its writing or copying end? {_ADVICE}"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}, expected a dict. {_ADVICE}")
    return _from_dict(content, str(file))


def _from_dict(content: dict[Any, Any], file: str) -> Proposals:
    content = {_DETECTRON_KEYS.get(key, key): value for key, value in content.items()}
    lists = []
    for key in ("ids", "boxes", "objectness_logits"):
        value = content.get(key)
        if isinstance(value, np.ndarray) and value.ndim > 0:
            value = list(value)
        if not isinstance(value, list | tuple):
            raise DataError(
                f"{file} lacks {key!r}, a list with one entry an image; "
                f"it has: {', '.join(map(str, content)) or 'nothing'}. {_ADVICE}"
            )
        lists.append(list(value))
    ids, boxes, logits = lists
    if not (0 < len(ids) == len(boxes) == len(logits)):
        raise DataError(
            f"{file} has {len(ids)} ids, {len(boxes)} entries of boxes and {len(logits)} of "
            f"objectness_logits; expected as many of each, at least one. {_ADVICE}"
        )
    for image_id, one, scores in zip(ids, boxes, logits, strict=True):
        if not (_is_float(one, 2) and one.shape[1] == 4 and _is_float(scores, 1)):
            raise DataError(
                f"{file}: image id {image_id} has boxes of {_kind(one)} and objectness_logits of "
                f"{_kind(scores)}; expected finite numbers, (P, 4) and (P,)"
            )
        if len(one) != len(scores):
            raise DataError(
                f"{file}: image id {image_id} has {len(one)} boxes and {len(scores)} "
                "objectness_logits; expected as many of each"
            )
    mode = content.get("bbox_mode", BoxMode.XYXY_ABS)
    if mode not in _MODES:
        known = ", ".join(f"{m.value} ({m.name})" for m in _MODES)
        raise DataError(f"{file} has the bbox_mode {mode!r}; expected one of {known}")
    if mode == BoxMode.XYWH_ABS:
        boxes = [np.concatenate([one[:, :2], one[:, :2] + one[:, 2:]], axis=1) for one in boxes]
    return Proposals([str(image_id) for image_id in ids], boxes, logits)


def _check_fits(proposals: Proposals, file: str, name: str, json_file: str) -> None:
    """Every image has its entry, and the boxes lie in it."""
    data = parse_annotations(Path(json_file).read_bytes(), json_file)
    index = {image_id: i for i, image_id in enumerate(proposals.ids)}
    images = data["images"]
    missing = [str(image["id"]) for image in images if str(image["id"]) not in index]
    if missing:
        raise DataError(
            f"{file} has no proposals for {len(missing)} of the {len(images)} images of data set "
            f"{name!r} ({json_file}), the first with image id {missing[0]}. Was it written for "
            f"another data set? {_ADVICE}"
        )
    if not any(len(proposals.boxes[index[str(image["id"])]]) for image in images):
        raise DataError(f"{file} has not one proposal for the images of data set {name!r}")
    for image in images:
        boxes = proposals.boxes[index[str(image["id"])]]
        if not len(boxes):
            continue
        beyond = max(
            -float(boxes[:, :2].min()),
            float(boxes[:, 2].max()) - image["width"],
            float(boxes[:, 3].max()) - image["height"],
        )
        if beyond > _OUTSIDE or (boxes[:, 2:] < boxes[:, :2]).any():
            raise DataError(
                f"{file}: a box of image id {image['id']} leaves its image of {image['width']} x "
                f"{image['height']} pixels by {max(beyond, 0):.0f}, or ends before it begins. "
                "Boxes are in pixels of the original image, in the bbox_mode that the file states."
            )


def _local(file: str, what: str) -> str:
    if "://" in file:
        try:
            return PathManager.get_local_path(file)
        except Exception as error:
            raise UserError(
                f"{what}: cannot fetch {file} ({error}). Copy it from a machine with a network, "
                "and give its path"
            ) from error
    if not os.path.isfile(file):
        raise UsageError(
            f"{what}: {file} does not exist (seen from {os.getcwd()}). Train the RPN and dump its "
            f"proposals first, or give the path of your own. {_ADVICE}"
        )
    return file


def _is_float(value: Any, dimensions: int) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.ndim == dimensions
        and value.dtype.kind == "f"
        and bool(np.isfinite(value).all())
    )


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        finite = value.dtype.kind != "f" or np.isfinite(value).all()
        return f"shape {value.shape}, {value.dtype}" + ("" if finite else ", not all finite")
    return f"type {type(value).__name__}"

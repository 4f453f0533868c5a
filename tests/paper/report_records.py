"""A folder of records as `tables run` leaves them, figures made up, for tests of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from made_records import kept, levels, made_matches

from mask_rcnn_ext.paper import Keys, Paper, code_hash, write_record
from mask_rcnn_ext.paper.matches_file import write_matches
from mask_rcnn_ext.paper.records import record_folder
from mask_rcnn_ext.paper.report import Report, make_report
from mask_rcnn_ext.paper.smoke import load_smoke, stand_ins
from mask_rcnn_ext.tools.tables.report import sorted_by_records

IMAGES = 40


def write_made(
    records: Path,
    paper: Paper,
    stage: str,
    seed: int,
    figures: Mapping[str, float],
    *,
    smoke: bool = False,
    picture: bool = False,
    **fields: Any,
) -> Path:
    """A record with the key that this version asks for, and matches of its AP; its folder.

    Args:
        stage: of `paper`
        figures: of results.json, in percent
        picture: whether it has pictures.webp
        fields: of the record that are different
    """
    code = code_hash()
    stages = stand_ins(paper, load_smoke()) if smoke else paper
    keys = Keys(
        stages,
        code=code,
        fingerprint=lambda name: "0123456789abcdef",
        smoke=load_smoke().as_json if smoke else None,
    )
    one = paper.stages[stage]
    folder = record_folder(records, "smoke" if smoke else one.scale, stage, seed)
    folder.mkdir(parents=True)
    files = []
    for key, value in figures.items():
        task, _, figure = key.partition("/")
        if figure == "AP" and task in ("bbox", "segm", "keypoints"):
            drawn = levels(IMAGES, value / 10, seed)
            write_matches(folder / f"matches_{task}.npz", made_matches(drawn))
            files.append(f"matches_{task}.npz")
    if picture:
        image = np.full((40, 120, 3), 200, np.uint8)
        cv2.putText(image, f"{seed}", (5, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 200), 2)
        cv2.imwrite(str(folder / "pictures.webp"), image)
        files.append("pictures.webp")
    points = [(k * 20, float(f"{6 / (1 + k / 4) + 0.5 + seed / 10:.5g}")) for k in range(1, 31)]
    given: dict[str, Any] = {
        "scale": one.scale,
        "smoke": smoke,
        "kind": one.kind,
        "key": keys.key_of(stage, seed),
        "code": code,
        "config": one.config,
        "overrides": one.words,
        "results": dict(figures),
        "hours": 0.0417,
        "iterations": 600,
        "seconds_per_iteration": 0.25,
        "memory_mb": 1230.0,
        "device": "cpu (2 cores)",
        "machine": "Some <Processor> & Co. | 3 GHz",
        "threads": 2,
        "precision": "bfloat16",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "versions": {"torch": "2.14.0", "numpy": "2.4.6"},
        "started": "2026-01-02T03:04:05Z",
        "curve": points if one.kind == "train" else [],
        "files": dict.fromkeys(files, ""),
    }
    write_record(folder, kept(stage, seed, **{**given, **fields}).record)
    return folder


def made_folder(records: Path, paper: Paper) -> Path:
    """Tables 2b and 2c on scenes: most rows with three seeds, one with one, one failed, one stale,
    one of another config; one record cannot be read.
    """
    ours = {"": (20.0, 3), "_roipool": (16.0, 3), "_softmax": (19.9, 3), "_roiwarp_max": (16.5, 1)}
    for end, (ap, seeds) in ours.items():
        for seed in range(1, seeds + 1):
            # One training on another machine.
            other = {"machine": "Another", "commit": "f" * 40} if (end, seed) == ("", 3) else {}
            mean = ap + seed / 4
            figures = {"segm/AP": mean, "segm/AP50": 1.9 * mean, "segm/AP75": mean - 1}
            write_made(
                records, paper, f"small_mask_R_50_C4{end}", seed, figures,
                picture=seed == 1 and end == "", **other,
            )  # fmt: skip
    failed = {"state": "failed", "reason": "loss is not finite | <b>at</b> step 3"}
    write_made(records, paper, "small_mask_R_50_C4_roiwarp_ave", 1, {}, **failed)
    write_made(
        records, paper, "small_mask_R_50_C4_roialign_max", 1, {"segm/AP": 99.0}, code="0" * 64
    )
    write_made(records, paper, "small_mask_R_50_C5", 1, {"segm/AP": 88.0}, key="0" * 64)
    broken = record_folder(records, "scenes", "small_mask_R_50_C5", 2)
    broken.mkdir()
    (broken / "record.json").write_bytes(b'{"format": 1, "scale"')
    return records


def report_of(
    records: Path,
    paper: Paper,
    of: Literal["coco", "scenes", "smoke"] = "scenes",
    tables: Iterable[str] = ("2b", "2c", "2d"),
    *,
    in_text: bool = False,
) -> Report:
    """As the verb makes it."""
    found = sorted_by_records(paper, records, of)
    return make_report(paper, of, found, folder=records, tables=list(tables), in_text=in_text)

"""How long an annotation file takes to load and what it costs in memory, ours beside Detectron2's.

Each loads the same generated file in a process of its own, builds its training loader with worker
processes, and draws records through it until every worker has served some; no image is opened. The
memory is that of the process and its workers together, each shared page counted once ("PSS"), as
Linux says; the peak is the largest of what was seen every few hundredths of a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from ...errors import UserError
from ...files import atomic_write
from .timing import Spread, environment, say, table

_CATEGORIES = 80
_POINTS = 24  # of a polygon on average, as in COCO
_SEED = 0
_POLL = 0.03  # seconds between two looks at the memory
_SERVED = 2000  # records a worker hands over before the memory is called steady
_WORD = b"bench-data "  # begins a line that is meant for the measuring process
_SIDES = ("ours", "stock")


def write_annotation_file(path: Path, images: int, instances: int) -> None:
    """A file like COCO's: 640x480 images, polygons of about 24 points with two decimals.

    One annotation in a hundred is a crowd with an uncompressed RLE. The same arguments give the
    same bytes.
    """
    random = np.random.default_rng(_SEED)
    owners = np.sort(random.integers(0, images, instances))
    with atomic_write(path) as file:
        file.write(b'{"info":{},"licenses":[],"images":[')
        for start in range(0, images, 10_000):
            some = [_image(i) for i in range(start, min(start + 10_000, images))]
            file.write((b"," if start else b"") + msgspec.json.encode(some)[1:-1])
        file.write(b'],"annotations":[')
        for start in range(0, instances, 10_000):
            mine = owners[start : start + 10_000]
            some = list(_annotations(mine, start, random))
            file.write((b"," if start else b"") + msgspec.json.encode(some)[1:-1])
        categories = [{"id": i + 1, "name": f"class {i + 1}"} for i in range(_CATEGORIES)]
        file.write(b'],"categories":' + msgspec.json.encode(categories) + b"}")


def _image(index: int) -> dict[str, Any]:
    return {"id": index + 1, "file_name": f"{index + 1:012d}.jpg", "height": 480, "width": 640}


def _annotations(
    owners: np.ndarray, start: int, random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    count = len(owners)
    points = random.integers(8, 2 * _POINTS - 8, count)
    centres = random.uniform((120, 100), (520, 380), (count, 2))
    radii = random.uniform(10, 90, count)
    classes = random.integers(1, _CATEGORIES + 1, count)
    for k in range(count):
        angles = np.linspace(0, 2 * np.pi, points[k], endpoint=False)
        reach = radii[k] * random.uniform(0.7, 1, points[k])
        corners = centres[k] + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        corners = corners.round(2)
        low, size = corners.min(0), np.ptp(corners, axis=0).round(2)
        annotation = {
            "segmentation": [corners.ravel().tolist()],
            "area": round(float(size.prod()) * 0.7, 4),
            "iscrowd": 0,
            "image_id": int(owners[k]) + 1,
            "bbox": [*low.tolist(), *size.tolist()],
            "category_id": int(classes[k]),
            "id": start + k + 1,
        }
        if (start + k) % 100 == 0:
            # The upper 40 rows of 295 columns, from the third column on.
            runs = [480 * 2, 40, *[440, 40] * 294]
            runs.append(480 * 640 - sum(runs))
            annotation["segmentation"] = {"size": [480, 640], "counts": runs}
            annotation |= {"iscrowd": 1, "bbox": [2, 0, 295, 40], "area": 295 * 40}
        yield annotation


@dataclass
class Side:
    """What one of the two did: seconds and bytes of each repeat."""

    load_seconds: list[float] = field(default_factory=list)
    first_batch_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[float] = field(default_factory=list)
    steady_bytes: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def run_file(
    images: int, instances: int, workers: int, repeats: int, file: str | None = None
) -> tuple[dict[str, Side], dict[str, Any]]:
    """Measure both in turns, and the facts that go with them.

    Args:
        images, instances: size of the generated file
        workers: processes of the loader
        repeats: turns
        file: an annotation file to use instead of a generated one
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("bench data: the memory of several processes can be measured on Linux only")
    sides = {name: Side() for name in _SIDES}
    with tempfile.TemporaryDirectory(prefix="mask_rcnn_ext_bench_") as folder:
        path = Path(file) if file else Path(folder) / "annotations.json"
        if not file:
            say(f"writing {images} images, {instances} instances")
            write_annotation_file(path, images, instances)
        size = path.stat().st_size
        for turn in range(repeats):
            for name in _SIDES:
                say(f"turn {turn + 1} of {repeats}: {name}")
                _measure(name, path, workers, sides[name])
    facts = {
        **environment(torch.device("cpu")),
        "images": images,
        "instances": instances,
        "file_bytes": size,
        "workers": workers,
        "repeats": repeats,
    }
    return sides, facts


def _measure(name: str, path: Path, workers: int, side: Side) -> None:
    command = [sys.executable, "-m", __name__, name, str(path), str(workers)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    os.set_blocking(child.stdout.fileno(), False)
    base, peak, text = 0.0, 0.0, b""
    while child.poll() is None:
        text += child.stdout.read() or b""
        line, newline, rest = text.partition(b"\n")
        if not newline:
            peak = max(peak, _memory(child.pid))
            time.sleep(_POLL)
            continue
        text = rest
        if not line.startswith(_WORD):
            continue  # somebody else's print
        word = json.loads(line[len(_WORD) :])
        now = _memory(child.pid)
        if "ready" in word:  # imports are done, nothing is loaded
            base = peak = now
        else:
            side.load_seconds.append(word["load"])
            side.first_batch_seconds.append(word["first"])
            side.steady_bytes.append(now - base)
            side.peak_bytes.append(max(peak, now) - base)
        child.stdin.write(b"\n")
        child.stdin.flush()
    if child.returncode:
        raise UserError(f"bench data: the process that loads with {name} failed; see above")


def _memory(pid: int) -> float:
    """Bytes of a process and all its descendants, shared pages counted once."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        try:
            for thread in Path(f"/proc/{one}/task").iterdir():
                todo += [int(child) for child in (thread / "children").read_text().split()]
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += int(rollup.partition("\nPss:")[2].split()[0]) * 1024
        except (OSError, IndexError, ValueError):
            continue  # it has just ended
    return total


def _touch(record: dict[str, Any]) -> dict[str, Any]:
    """Reads a record as a mapper does, but opens no image."""
    numbers = 0
    for annotation in record["annotations"]:
        segmentation = annotation["segmentation"]
        numbers += sum(map(len, segmentation)) if isinstance(segmentation, list) else 1
    return {"width": record["width"], "height": record["height"], "numbers": numbers}


def _child(name: str, json_file: str, workers: int) -> None:
    """Load, serve, and say when; runs in a process of its own."""
    import warnings

    import detectron2.data

    from ... import load_config
    from ...data.loader import build_train_loader
    from ...data.registration import register_coco_dataset
    from ...data.run_records import select_records

    images = os.path.dirname(os.path.abspath(json_file))  # where none is looked for
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # it is asked for
    overrides = ["DATASETS.TRAIN", "('bench_data',)", "SOLVER.IMS_PER_BATCH", "16"]
    overrides += ["DATALOADER.NUM_WORKERS", str(workers), "SEED", "0"]
    cfg = load_config(None, overrides)
    if name == "ours":
        register_coco_dataset("bench_data", json_file, images)
    else:
        detectron2.data.datasets.register_coco_instances("bench_data", {}, json_file, images)
    _say({"ready": True})
    begin = time.perf_counter()
    if name == "ours":
        records = select_records(cfg.DATASETS.TRAIN, filter_empty=True)
        loader = build_train_loader(cfg, records, _touch, 0)
    else:
        loader = detectron2.data.build_detection_train_loader(cfg, mapper=_touch)
    load = time.perf_counter() - begin
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - begin
    for _ in range(_SERVED * max(1, workers) // cfg.SOLVER.IMS_PER_BATCH):
        next(batches)
    _say({"steady": True, "load": load, "first": first})
    os._exit(0)  # workers that prefetch have nothing to tidy up


def _say(word: dict[str, Any]) -> None:
    """One line to the measuring process, then wait for its answer."""
    print(_WORD.decode() + json.dumps(word), flush=True)
    sys.stdin.readline()


def as_text(sides: dict[str, Side], facts: dict[str, Any]) -> str:
    """The table, and what one must know to read it."""
    header = ["whose", "loaded, s", "first batch, s", "peak MB", "steady MB"]
    rows = []
    for name, side in sides.items():
        rows.append(
            [
                name,
                Spread.of(side.load_seconds).text(),
                Spread.of(side.first_batch_seconds).text(),
                Spread.of(side.peak_bytes).text(1e-6, 0),
                Spread.of(side.steady_bytes).text(1e-6, 0),
            ]
        )
    ratios = ["stock / ours"]
    for key in ("load_seconds", "first_batch_seconds", "peak_bytes", "steady_bytes"):
        pairs = zip(getattr(sides["stock"], key), getattr(sides["ours"], key), strict=True)
        ratios.append(Spread.of([a / b for a, b in pairs]).text())
    return "\n".join(
        [
            f"{facts['device_name']}; {facts['images']} images, {facts['instances']} instances, "
            f"{facts['file_bytes'] / 1e6:.0f} MB; {facts['workers']} workers, "
            f"{facts['repeats']} turns",
            table(header, [*rows, ratios]),
            "Memory: the process and its workers beyond imports, shared pages counted once; steady "
            f"is after {_SERVED} records a worker.",
        ]
    )


def main(words: Sequence[str]) -> None:
    """Entry of the measured process: ours|stock FILE WORKERS."""
    _child(words[0], words[1], int(words[2]))


if __name__ == "__main__":
    main(sys.argv[1:])

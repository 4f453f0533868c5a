"""Keep what a report needs of a stage that has ended: its record.

  python -m mask_rcnn_ext.tools.tables.gather --stage mask_R_50_C4 --seed 1 --key K --code C \\
      --out output/tables --records output/tables/records --scale coco

`tables run` calls it after a stage's commands, in the environment that they had. The record
(paper/records.py) is built in a folder beside and moved into its place when it is whole.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ...errors import UsageError, UserError, exit_code_of
from ...paper import Stage, load_paper
from ...paper.lineage import is_repeat
from ...paper.matches_file import Matches, records_of, write_matches
from ...paper.place import Place
from ...paper.records import FORMAT, Record, read_record, record_folder, write_record
from ...paper.smoke import load_smoke, stand_ins
from ...paper.spec import nearest
from .curves import read_curve
from .run_files import Bench, Config, Figures, Labels, Run, read_file

if TYPE_CHECKING:  # imported when there is something to match: they take torch along
    from .matches import EvaluatedSet

PROGRAM = "mask-rcnn-ext tables gather"
PICTURES = "pictures.webp"
FIRST_SEED = 1  # the one that has pictures
_TASKS = ("segm", "keypoints", "bbox")  # the first one's pictures are drawn
_AP_SLACK = 1e-4  # percent, between results.json and what the predictions give
_HOUR = 3600.0


@dataclass(frozen=True)
class Kept:
    """What goes into a record's folder.

    matches: of each task
    pictures: a WebP file
    """

    record: Record
    matches: Mapping[str, Matches] = field(default_factory=dict)
    pictures: bytes | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Write the record; exit code 0, 1 for a file that is missing or wrong, 2 for wrong usage."""
    return exit_code_of(lambda: _main(argv), PROGRAM)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    paper = load_paper()
    stages = (stand_ins(paper, load_smoke()) if args.smoke else paper).stages
    if args.stage not in stages:
        raise UsageError(f"there is no stage {args.stage!r}{nearest(args.stage, stages)}")
    stage = stages[args.stage]
    from ...config import require_detectron2

    require_detectron2()
    run = args.run or Place(args.out, args.records).run_of(stage, args.seed)
    kept = _failed(args, stage, run) if args.failed is not None else _finished(args, stage, run)
    scale = "smoke" if args.smoke else args.scale
    target = record_folder(args.records, scale, stage.id, args.seed)
    if _is_repeat(target, kept.record):
        print(f"{target}: the same figures as before, the record stays")
        return 0
    _write(target, kept)
    print(f"{target}: {kept.record.state}")
    return 0


def _is_repeat(target: Path, record: Record) -> bool:
    try:
        return is_repeat(record, read_record(target).record)
    except UserError:  # there is none, or none that is whole
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", required=True, metavar="S", help="of configs/paper/")
    parser.add_argument("--seed", required=True, type=int, metavar="N", help="of the run")
    parser.add_argument("--key", required=True, metavar="K", help="the record's content hash")
    parser.add_argument("--code", required=True, metavar="C", help="hash of the code")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="of `tables run`")
    parser.add_argument("--records", required=True, type=Path, metavar="DIR", help="likewise")
    parser.add_argument("--scale", required=True, choices=("coco", "scenes"), help="of the stage")
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="the stage's own folder (default: of --out)"
    )
    parser.add_argument(
        "--given",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a config key that the run had over the stage's own; may be repeated",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="data or schedule were stand-ins; kept apart"
    )
    parser.add_argument(
        "--no-pictures",
        action="store_true",
        help=f"draw none (default: those of seed {FIRST_SEED})",
    )
    parser.add_argument(
        "--failed", metavar="REASON", help="the stage did not end well: a record that says so"
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="that a stage without run.json ran on (default: the GPU if there is one)",
    )
    parser.add_argument(
        "--hours", type=float, default=0.0, metavar="H", help="that such a stage took"
    )
    return parser


# ---- records


def _failed(args: argparse.Namespace, stage: Stage, folder: Path) -> Kept:
    """With what its run.json says, if there is one."""
    run = None
    with contextlib.suppress(UserError):
        run = read_file(folder / "run.json", Run)
    return Kept(_record(args, stage, run, state="failed", reason=args.failed, results={}))


def _finished(args: argparse.Namespace, stage: Stage, folder: Path) -> Kept:
    """
    Raises:
        UserError: a file that is missing or wrong; names it
    """
    if stage.kind == "time":
        return _timed(args, stage, read_file(folder / "bench.json", Bench))
    if stage.kind == "distill":
        return _distilled(args, stage, read_file(folder / "labels.json", Labels))
    run = read_file(folder / "run.json", Run)
    for what, came, expected in (("state", run.state, "finished"), ("seed", run.seed, args.seed)):
        if came != expected:
            raise UserError(f"{folder / 'run.json'} has the {what} {came}, expected {expected}")
    results = read_file(folder / "results.json", Figures)
    matches, pictures = _matches(
        stage, folder, results, draw=args.seed == FIRST_SEED and not args.no_pictures
    )
    facts: dict[str, Any] = {}
    if stage.kind == "train":
        curve = read_curve(folder / "metrics.json")
        results["run/hours"] = _hours(run)
        results["run/seconds_per_iteration"] = curve.seconds
        facts = {
            "curve": curve.points,
            "seconds_per_iteration": curve.seconds,
            "iterations": run.starts[-1].reached if run.starts else None,
            "precision": run.precision.get("training", ""),
        }
    names = [_file_of(task) for task in matches] + ([PICTURES] if pictures else [])
    facts["files"] = dict.fromkeys(names, "")  # hashed when the record is written
    return Kept(
        _record(args, stage, run, state="finished", results=results, **facts), matches, pictures
    )


def _hours(run: Run) -> float:
    return round(run.wall_seconds / _HOUR, 5)


def _timed(args: argparse.Namespace, stage: Stage, bench: Bench) -> Kept:
    """What was measured of our side, an image."""
    turns = [sum(parts) for parts in zip(*bench.ours.seconds.values(), strict=True)]
    results: Figures = {
        "time/ms_per_image": 1e3 * median(turns) / bench.images,
        "time/masks_ms": 1e3 * median(bench.ours.seconds["masks"]) / bench.images,
        "time/images_per_second": bench.ours.images_per_second,
    }
    facts = {"device": bench.device_name, "threads": bench.threads, "precision": bench.precision}
    return Kept(_record(args, stage, None, state="finished", results=results, **facts))


def _distilled(args: argparse.Namespace, stage: Stage, labels: Labels) -> Kept:
    """How many labels the teacher gave, and from which score on."""
    info = labels.info
    scores = [one.score for one in info.thresholds]
    results: Figures = {
        "labels/images": info.images,
        "labels/objects": info.objects,
        "labels/objects_per_image": info.objects_per_image,
        "labels/threshold": scores[0] if len(scores) == 1 else None,  # not one for each class
    }
    return Kept(_record(args, stage, None, state="finished", results=results))


def _record(args: argparse.Namespace, stage: Stage, run: Run | None, **fields: Any) -> Record:
    """
    Args:
        run: None for a stage without run.json: this process has the same environment
        fields: what else there is to say, or to say differently
    """
    import torch

    from ...engine.provenance import code_version, versions
    from ..bench.timing import device_name

    if run is None:
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        begin = time.gmtime(time.time() - args.hours * _HOUR)
        facts: dict[str, Any] = {
            "hours": args.hours,
            "device": device_name(torch.device(device)),
            "commit": code_version()["commit"],
            "versions": versions(),
            "datasets": {},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", begin),
        }
    else:
        facts = {
            "hours": _hours(run),
            "memory_mb": run.peak_memory_mb,
            "gpu_memory_mb": run.peak_gpu_memory_mb,
            "threads": run.threads,
            "device": run.device,
            "commit": run.commit,
            "versions": run.versions,
            "datasets": run.datasets,
            "started": run.started,
        }
    return Record(
        format=FORMAT,
        scale=args.scale,
        smoke=args.smoke,
        stage=stage.id,
        kind=stage.kind,
        seed=args.seed,
        key=args.key,
        code=args.code,
        config=stage.config,
        overrides=[*stage.words, *(word for pair in args.given for word in pair)],
        machine=device_name(torch.device("cpu")),
        **{**facts, **fields},
    )


# ---- matches and pictures


def _matches(
    stage: Stage, folder: Path, results: Figures, *, draw: bool
) -> tuple[dict[str, Matches], bytes | None]:
    """Of each task that has figures, and pictures of the first one.

    With several test sets the figures have the sets' names in front, and nothing is kept.
    """
    keys = {task: stage.key_of(f"{task}/AP") for task in _TASKS}
    keys = {task: key for task, key in keys.items() if results.get(key) is not None}
    if not keys:
        return {}, None
    from ...evaluation.results import read_results
    from .matches import match_results
    from .pictures import draw_strip, extremes

    config = read_file(folder / "config.yaml", Config)
    tested = _test_set(config, folder)
    first, key = next(iter(keys.items()))
    # The evaluation with test-time augmentation has a folder of its own.
    suffix = key.partition("/")[0].removeprefix(first)
    predictions = folder / "inference" / f"{tested.name}{suffix}" / "coco_instances_results.json"
    found = read_results(predictions, tested.truth, list(keys))
    matches = {}
    for task, key in keys.items():
        matches[task] = match_results(
            tested.truth,
            found,
            task,
            cap=config.TEST.DETECTIONS_PER_IMAGE,
            sigmas=config.TEST.KEYPOINT_OKS_SIGMAS or None,
        )
        _check_ap(matches[task], predictions, key, results[key], folder / "results.json")
    chosen = extremes(matches[first]) if draw else []
    return matches, draw_strip(chosen, tested, found) if chosen else None


def _check_ap(
    matches: Matches, predictions: Path, key: str, given: float | None, source: Path
) -> None:
    """Refuse predictions that are not those of the figures."""
    from ...evaluation.analysis import PrecisionCurves, average_precision

    measured = 100 * average_precision(PrecisionCurves(records_of(matches)).precision())
    if given is None or not abs(measured - given) <= _AP_SLACK:
        raise UserError(
            f"{predictions} gives {key} {measured:.4f}, but {source} says {given}: they are of two "
            "evaluations, or the data changed since. Run the stage anew."
        )


def _test_set(config: Config, folder: Path) -> EvaluatedSet:
    """What the run was evaluated on."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from ...data.registration import describe_unknown, locate_dataset, register_from
    from ...data.subset import register_subset
    from ...evaluation.coco_truth import GroundTruth
    from .matches import EvaluatedSet

    register_from(config.DATASETS.REGISTRY)
    name, most = config.DATASETS.TEST[0], config.DATASETS.MAX_IMAGES
    if most:
        register_subset(name.removesuffix(f"_first{most}"), most, folder / "datasets")
    if name not in DatasetCatalog.list():
        raise UserError(f"{folder / 'config.yaml'}: DATASETS.TEST: {describe_unknown(name)}")
    location = locate_dataset(name)
    if location is None:
        raise UserError(f"data set {name!r} has no annotation file in COCO's format")
    json_file, image_root = location
    ids = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id")
    truth = GroundTruth.of(json_file, category_ids=None if ids is None else list(ids))
    return EvaluatedSet(name, json_file, image_root, truth)


# ---- writing


def _file_of(task: str) -> str:
    return f"matches_{task}.npz"


def _write(target: Path, kept: Kept) -> None:
    """
    Raises:
        UserError: the disk is full, no permission, ...; what was there before stays
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(target) as folder:
            for task, matches in kept.matches.items():
                write_matches(folder / _file_of(task), matches)
            if kept.pictures:
                (folder / PICTURES).write_bytes(kept.pictures)
            write_record(folder, kept.record)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or target}: {error.strerror}") from error


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends well."""
    for left in target.parent.glob(f".{target.name}.*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    aside = folder.with_suffix(f"{folder.suffix}-old")
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            os.replace(target, aside)
        os.replace(folder, target)
    finally:
        for left in (folder, aside):
            shutil.rmtree(left, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

"""`mask-rcnn-ext eval`: COCO figures of a results file; no model is needed.

  mask-rcnn-ext eval --predictions coco_instances_results.json --dataset coco_2017_val
  mask-rcnn-ext eval --predictions out.json --dataset instances_val.json --per-class --json f.json

The same code as `train_net.py --eval-only`. Predictions are checked first: ids, scores, the sizes
and run lengths of masks. Notes below the tables say why a figure is NaN, and when figures are not
comparable with COCO's official ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bench import positive
from .data.source import add_registry_argument, resolve_source
from .json_file import write_json_file

if TYPE_CHECKING:
    from ..data.coco_table import CocoTable
    from ..evaluation.coco_metrics import CocoFigures
    from .data.source import Source

HELP = "COCO figures of a file of predictions, without a model"

_TASKS = ("bbox", "segm", "keypoints", "boundary")
_BACKENDS = ("auto", "hotcoco", "pycocotools")
_MADE_BY = "mask-rcnn-ext eval"  # marks reports, which a later call may replace
_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--predictions", required=True, metavar="FILE", help="detections in COCO's results format"
    )
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME|FILE",
        help="a data set's name as in DATASETS.TEST, or an annotation file in COCO's format",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=_TASKS,
        metavar="TASK",
        help=f"some of {', '.join(_TASKS)} (default: what the predictions hold, but boundary)",
    )
    parser.add_argument(
        "--max-dets",
        type=positive,
        default=100,
        metavar="N",
        help="detections an image and class that count; COCO's figures have 100 (default: 100)",
    )
    parser.add_argument(
        "--sigmas",
        nargs="+",
        type=float,
        metavar="S",
        help="one a keypoint (default: the data set's own, else those of COCO's person)",
    )
    parser.add_argument(
        "--backend",
        choices=_BACKENDS,
        default="auto",
        help="library that does it; the figures are the same, pycocotools is the referee "
        "(default: auto, the fastest)",
    )
    parser.add_argument("--per-class", action="store_true", help="a table of the classes, too")
    add_registry_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--force", action="store_true", help="replace another file at --json")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; 0. Wrong data is a DataError, a wrong call a UsageError."""
    from ..config import require_detectron2

    require_detectron2()
    from ..evaluation.coco_report import classes_text, summary_text
    from .data.target import check_target

    source = resolve_source(args.dataset, None, args.registry)
    if args.json:
        inputs = (source.json_file, args.predictions)
        check_target(args.json, "--json", _MADE_BY, inputs=inputs, force=args.force)
    figures = _evaluate(args, source)
    if args.per_class:
        for one in figures:
            print(f"{one.task}, per class\n{classes_text(one)}\n")
    first = figures[0]
    print(f"{source.name}: {first.images} images, {first.detections} detections; in percent\n")
    print(summary_text(figures))
    if args.json:
        _write(args, source, figures)
    return 0


def _evaluate(args: argparse.Namespace, source: Source) -> list[CocoFigures]:
    from ..evaluation.coco_metrics import caps_for, evaluate_coco
    from ..evaluation.coco_truth import GroundTruth
    from ..evaluation.results import check_results, read_results
    from .data.reading import read_with_progress

    table = read_with_progress(source.json_file)
    truth = GroundTruth.of(table)
    results = read_results(args.predictions, truth)
    tasks = list(dict.fromkeys(args.tasks)) if args.tasks else _tasks_of(results, table)
    check_results(results, truth, tasks, args.predictions)
    return [
        evaluate_coco(
            truth,
            results,
            task,
            max_dets=None if task == "keypoints" else caps_for(args.max_dets),
            sigmas=_sigmas(args, source) if task == "keypoints" else None,
            backend=args.backend,
            checked=True,
        )
        for task in tasks
    ]


def _tasks_of(results: Sequence[dict[str, Any]], table: CocoTable) -> list[str]:
    """What some prediction holds; without any, what the annotations hold."""
    from ..data.coco_table import NO_SEGMENTATION

    if results:
        return [task for task, key in _FIELDS.items() if any(key in one for one in results)] or [
            "bbox"
        ]
    tasks = ["bbox"]
    tasks += ["segm"] if (table.segmentation_kind != NO_SEGMENTATION).any() else []
    tasks += ["keypoints"] if (table.num_keypoints > 0).any() else []
    return tasks


def _sigmas(args: argparse.Namespace, source: Source) -> tuple[float, ...] | None:
    from ..data.registration import keypoint_schema_of

    if args.sigmas:
        return tuple(args.sigmas)
    schema = keypoint_schema_of(source.name) if source.registered else None
    return schema.sigmas or None if schema else None


def _write(args: argparse.Namespace, source: Source, figures: Sequence[CocoFigures]) -> None:
    report = {
        "made_by": _MADE_BY,
        "dataset": source.name,
        "annotations": Path(source.json_file).name,
        "predictions": Path(args.predictions).name,
        "results": {one.task: one.as_json() for one in figures},
    }
    write_json_file(args.json, report)

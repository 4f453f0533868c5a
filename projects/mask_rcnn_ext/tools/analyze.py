"""`mask-rcnn-ext analyze`: one HTML page that says why the figures of a results file are such.

  mask-rcnn-ext analyze --predictions coco_instances_results.json --dataset coco_2017_val \\
      --out report.html
  mask-rcnn-ext analyze --predictions new.json --compare old.json --dataset val.json \\
      --out report.html --json report.json

AP with intervals, classes, precision-recall curves, confusion, kinds of errors, AP by crowding,
occlusion and area, images without objects, the worst and the best images; with --compare a paired
test on the same images. IoU is of masks where the predictions have some. The page works offline.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bench import natural, positive
from .data.source import add_images_argument, add_registry_argument, resolve_source

if TYPE_CHECKING:
    from ..data.coco_table import CocoTable
    from ..visualization.analysis_numbers import Analysis
    from .data.source import Source

HELP = "why a results file has its figures: curves, confusion, errors, pictures, a paired test"

_TASKS = ("bbox", "segm")
_FIELDS = {"segm": "segmentation", "bbox": "bbox"}

Json = dict[str, Any]


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
    parser.add_argument("--out", required=True, metavar="HTML", help="the page")
    parser.add_argument(
        "--compare", metavar="FILE", help="another run's detections on the same images"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=_TASKS,
        metavar="TASK",
        help="bbox, segm or both (default: segm if the predictions have masks, else bbox)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="classes that get a precision-recall curve (default: the 12 with most objects)",
    )
    parser.add_argument(
        "--max-dets",
        type=positive,
        default=100,
        metavar="N",
        help="detections an image and class that count; COCO's figures have 100 (default: 100)",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=300,
        metavar="N",
        help="draws of images for intervals and the paired test (default: 300)",
    )
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="K", help="of the draws (default: 0)"
    )
    parser.add_argument(
        "--pictures",
        type=natural,
        default=6,
        metavar="N",
        help="how many of the worst and of the best images are drawn (default: 6)",
    )
    add_images_argument(parser)
    add_registry_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="write every number of the page there, too")
    parser.add_argument("--force", action="store_true", help="replace files that are there already")


def run(args: argparse.Namespace) -> int:
    """Write the page; 0. Wrong data is a DataError, a wrong call a UsageError."""
    from ..config import require_detectron2
    from ..errors import UserError
    from ..files import atomic_write, write_json

    require_detectron2()
    from ..visualization.analysis_page import analysis_page

    source = resolve_source(args.dataset, args.images, args.registry)
    _check_targets(args, source)
    report, pictures, analyses = _analyse(args, source)
    page = analysis_page(report, pictures)
    target = args.out
    try:
        with atomic_write(target) as file:
            file.write(page)
        if args.json:
            target = args.json
            write_json(target, report)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    print(f"{args.out}: {len(page) / 1e6:.1f} MB")
    for one in analyses:
        print(_line(one.numbers))
    return 0


def _check_targets(args: argparse.Namespace, source: Source) -> None:
    from ..errors import UsageError
    from ..visualization.analysis_page import GENERATOR
    from .data.target import check_target

    inputs = tuple(filter(None, (source.json_file, args.predictions, args.compare)))
    for option, target in (("--out", args.out), ("--json", args.json)):
        if target:
            check_target(target, option, GENERATOR, inputs=inputs, force=args.force)
    if args.json and Path(args.json).absolute() == Path(args.out).absolute():
        raise UsageError(f"--out and --json are both {args.out}; the page and the numbers are two")


def _analyse(
    args: argparse.Namespace, source: Source
) -> tuple[Json, list[list[list[Json]]], list[Analysis]]:
    """The report, the pictures of each task, and the tasks."""
    from tqdm import tqdm

    from ..evaluation.coco_truth import GroundTruth
    from ..evaluation.results import check_results, read_results
    from ..visualization.analysis_numbers import Settings, analyse
    from ..visualization.analysis_page import GENERATOR
    from ..visualization.analysis_pictures import draw_extremes
    from .data.reading import read_with_progress

    table = read_with_progress(source.json_file)
    truth = GroundTruth.of(table)
    results = read_results(args.predictions, truth)
    tasks = list(dict.fromkeys(args.tasks or [_task_of(results, table, args.predictions)]))
    check_results(results, truth, tasks, args.predictions)
    other = read_results(args.compare, truth, tasks) if args.compare else None
    names = _names(args.predictions, args.compare)
    analyses, pictures = [], []
    for task in tasks:
        settings = Settings(task, args.max_dets, args.samples, args.seed, tuple(args.classes))
        with tqdm(desc=f"{task}: draws", unit="", disable=None, leave=False) as bar:
            one = analyse(truth, results, settings, other=other, names=names, progress=_teller(bar))
        with tqdm(desc=f"{task}: pictures", unit="", disable=None, leave=False) as bar:
            drawn = draw_extremes(one, table, source.image_root, args.pictures, _teller(bar))
        one.numbers["pictures"] = drawn.numbers
        pictures.append([drawn.worst, drawn.best])
        analyses.append(one)
    report = {
        "made_by": GENERATOR,
        "dataset": source.name,
        "annotations": Path(source.json_file).name,
        "predictions": names[0],
        "compared_with": names[1] if args.compare else None,
        "max_dets": args.max_dets,
        "draws": args.samples,
        "seed": args.seed,
        "notes": _notes(results),
        "tasks": [one.numbers for one in analyses],
    }
    return report, pictures, analyses


def _teller(bar: Any) -> Callable[[int, int], None]:
    def tell(done: int, of: int) -> None:
        bar.total = of
        bar.update(done - bar.n)

    return tell


def _task_of(results: Sequence[Json], table: CocoTable, path: str) -> str:
    """Masks where the predictions have some; without any prediction, where the annotations do."""
    from ..data.coco_table import NO_SEGMENTATION
    from ..errors import DataError

    if not results:
        return "segm" if (table.segmentation_kind != NO_SEGMENTATION).any() else "bbox"
    for task, field in _FIELDS.items():
        if any(field in one for one in results):
            return task
    if any("keypoints" in one for one in results):
        raise DataError(
            f"{path} holds keypoints without boxes or masks; what is analysed here is boxes and "
            "masks. `mask-rcnn-ext eval` gives the keypoints' figures"
        )
    raise DataError(f"{path} holds neither boxes nor masks, so there is nothing to analyse")


def _names(predictions: str, compare: str | None) -> tuple[str, str]:
    """The files' names, with the folders where the names are the same."""
    own, other = Path(predictions), Path(compare or "")
    if compare and own.name == other.name:
        return f"{own.parent.name}/{own.name}", f"{other.parent.name}/{other.name}"
    return own.name, other.name


def _notes(results: Sequence[Json]) -> list[str]:
    if any("keypoints" in one for one in results):
        return [
            "The predictions have keypoints, which are not analysed here: only boxes and masks "
            "are. `mask-rcnn-ext eval` gives the keypoints' figures."
        ]
    return []


def _line(numbers: Json) -> str:
    """The main figure, the operating point and the paired test, for the terminal."""
    from ..visualization.analysis_page import decimals

    first, point = numbers["figures"][0], numbers["operating_point"]
    text = f"{numbers['task']}: AP {decimals(first['value'])}"
    if first["low"] is not None:
        level = f"{first['level']:.0%}"
        text += f" ({level} interval {decimals(first['low'])} to {decimals(first['high'])})"
    if point["score"] is not None:
        text += (
            f"; from score {point['score']:.3f} precision {decimals(point['precision'])}, recall "
            f"{decimals(point['recall'])}, F1 {decimals(point['f1'])}, chosen on these images"
        )
    says = [numbers["paired"]["figures"][0]["says"]] if numbers["paired"] else []
    return "\n".join([text, *says, *(f"- {note}" for note in numbers["notes"])])

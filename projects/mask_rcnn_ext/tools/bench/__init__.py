"""`mask-rcnn-ext bench`: measure our parts against Detectron2's, or what a model's parts cost.

  bench roi      time and peak memory of our RoI layers and of stock ones, in turns
  bench cost     parameters, multiply-adds and time of backbone, RPN and each branch of a config
  bench masks    time and peak memory of pasting masks and writing them as RLE, ours and stock's
  bench targets  time of mask targets from polygons, ours and stock's
  bench eval     evaluation's two parts: masks to RLE as above, and COCO figures, ours and
                 pycocotools', arrays compared
  bench data     samples a second from images, and loading a large annotation file, ours and stock's
  bench train    images a second and memory of training, ours and stock's
  bench infer    the same of inference, from a decoded image to RLE masks, and its stages

Nothing is downloaded. Features, RoIs, masks, weights and annotation files are random with fixed
seeds; `bench data`, `train` and `infer` take images, of a data set or generated scenes.
Progress goes to stderr, the table to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

from ..json_file import write_json_file
from ..scenes import parse_size

HELP = "measure training, inference and their parts against stock, or the parts of a model"

QUICK_START = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
_DTYPES = ("float32", "float64", "float16", "bfloat16")
_CASES = ("v2", "align", "max", "pool", "warp", "c4", "c5")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return int(text) if text.isdecimal() else positive(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    roi = what.add_parser(
        "roi",
        help="RoI layers: ours beside stock",
        description="Our RoI layers beside stock ones: time, peak memory, largest difference.",
    )
    roi.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    roi.add_argument(
        "--cases",
        nargs="+",
        choices=_CASES,
        default=list(_CASES),
        metavar="CASE",
        help=f"some of {', '.join(_CASES)} (default: all)",
    )
    roi.add_argument(
        "--sizes", nargs="+", type=positive, metavar="P", help="bins a side (default: 7 14)"
    )
    roi.add_argument(
        "--dtypes",
        nargs="+",
        choices=_DTYPES,
        metavar="T",
        help=f"some of {', '.join(_DTYPES)}; the last two under autocast "
        "(default: float32, on a GPU bfloat16 too)",
    )
    roi.add_argument(
        "--quick", action="store_true", help="a tiny workload, to see that it runs; no figure"
    )
    roi.add_argument(
        "--picture",
        metavar="FILE",
        help="measure nothing; draw what each layer looks at into this PNG",
    )

    cost = what.add_parser(
        "cost",
        help="what each part of a model costs",
        description="Parameters, multiply-adds and time of each part of a model, for one image.",
    )
    cost.add_argument("--config-file", required=True, metavar="FILE", help="as for `train`")
    cost.add_argument(
        "--image-size",
        type=parse_size,
        default=(800, 1333),
        metavar="HxW",
        help="network input before padding, pixels (default: 800x1333)",
    )
    cost.add_argument("--time", action="store_true", help="measure times too")
    cost.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="config overrides; MODEL.DEVICE is the GPU if there is one, else cpu",
    )

    masks = what.add_parser(
        "masks",
        help="masks to RLE: ours beside stock",
        description="Masks of detections pasted into the image and written as RLE, on the CPU: "
        "ours beside Detectron2's paste and pycocotools' encode.",
    )
    masks.add_argument(
        "--image-size",
        nargs="+",
        type=parse_size,
        default=[(1024, 2048)],
        metavar="HxW",
        help="one or more, pixels (default: 1024x2048)",
    )
    masks.add_argument(
        "--detections",
        nargs="+",
        type=positive,
        default=[100],
        metavar="N",
        help="one or more counts of masks an image (default: 100)",
    )

    targets = what.add_parser(
        "targets",
        help="mask targets from polygons: ours beside stock",
        description="What the mask branch learns from, made of polygons on the CPU: ours beside "
        "Detectron2's PolygonMasks.crop_and_resize.",
    )
    targets.add_argument(
        "--rois",
        nargs="+",
        type=natural,
        default=[16, 64, 256],
        metavar="R",
        help="one or more counts of RoIs a minibatch (default: 16 64 256)",
    )
    targets.add_argument(
        "--sides",
        nargs="+",
        type=positive,
        default=[14, 28, 56],
        metavar="M",
        help="one or more mask sides (default: 14 28 56)",
    )

    evaluation = what.add_parser(
        "eval",
        help="evaluation: ours beside stock",
        description="Masks of detections written as RLE, ours beside Detectron2's paste and "
        "pycocotools' encode; then COCO figures of made-up detections, ours beside pycocotools as "
        "Detectron2 calls it: time, peak memory, largest difference.",
    )
    evaluation.add_argument(
        "--images", type=positive, default=5000, metavar="N", help="(default: 5000)"
    )
    evaluation.add_argument(
        "--detections",
        nargs="+",
        type=positive,
        default=[36000],
        metavar="N",
        help="one or more counts, in all images (default: 36000)",
    )
    evaluation.add_argument(
        "--tasks",
        nargs="+",
        choices=("bbox", "segm", "keypoints"),
        default=["segm"],
        metavar="TASK",
        help="some of bbox, segm, keypoints (default: segm)",
    )

    evaluation.add_argument(
        "--image-size",
        nargs="+",
        type=parse_size,
        default=[(480, 640), (1024, 2048)],
        metavar="HxW",
        help="of the masks, pixels (default: 480x640 1024x2048)",
    )
    evaluation.add_argument(
        "--masks",
        nargs="*",
        type=positive,
        default=[10, 100],
        metavar="N",
        help="counts of masks an image (default: 10 100); none: no masks",
    )

    data = what.add_parser(
        "data",
        help="samples and annotation files: ours beside stock",
        description="Samples made from images by our mapper and by Detectron2's, then a generated "
        "annotation file loaded by both with worker processes: time and memory.",
    )
    data.add_argument(
        "--dataset",
        metavar="NAME",
        help="images to make samples of (default: coco_2017_train if it is there, else scenes)",
    )
    data.add_argument(
        "--images", type=natural, default=50, metavar="N", help="of them; 0: none (default: 50)"
    )
    data.add_argument(
        "--file-images",
        type=natural,
        default=100_000,
        metavar="N",
        help="of the generated file; 0: no file (default: 100000)",
    )
    data.add_argument(
        "--file-instances",
        type=positive,
        default=800_000,
        metavar="N",
        help="of the generated file (default: 800000)",
    )
    data.add_argument(
        "--workers", type=natural, default=4, metavar="N", help="of the loader (default: 4)"
    )
    data.add_argument(
        "--file-repeats", type=positive, default=3, metavar="N", help="timed turns (default: 3)"
    )

    train = what.add_parser(
        "train",
        help="training: ours beside stock",
        description="Training in images a second and memory: our loader, model, step and optimizer "
        "beside Detectron2's, in turns, from the same weights.",
    )
    train.add_argument(
        "--config-file",
        metavar="FILE",
        help="as for `train` (default: the quick start's, on generated scenes)",
    )
    train.add_argument(
        "--iterations", type=positive, default=20, metavar="N", help="of a block (default: 20)"
    )

    infer = what.add_parser(
        "infer",
        help="inference: ours beside stock",
        description="Inference from a decoded image to boxes and RLE masks, in stages: ours beside "
        "Detectron2's model, paste and pycocotools' encode, in turns.",
    )
    infer.add_argument(
        "--config-file",
        default="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        metavar="FILE",
        help="as for `train` (default: R-50-FPN)",
    )
    infer.add_argument(
        "--image-size",
        type=parse_size,
        metavar="HxW",
        help="network input before padding, pixels (default: as the config resizes each image)",
    )
    infer.add_argument(
        "--dataset",
        metavar="NAME",
        help="whose images (default: coco_2017_train if it is there, else scenes)",
    )
    infer.add_argument(
        "--images", type=positive, default=4, metavar="N", help="of them (default: 4)"
    )
    for each, key, choices in (
        (train, "amp", ("off", "float16", "bfloat16")),
        (infer, "precision", ("float32", "float16", "bfloat16")),
    ):
        each.add_argument(
            f"--{key}", choices=choices, help=f"arithmetic of ours (default: {choices[0]})"
        )
        each.add_argument(
            "--device", choices=("cpu", "cuda"), help="(default: the GPU if there is one)"
        )
        each.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")

    for each, turns in (
        (train, "blocks (default: 7)"),
        (infer, "turns (default: 5)"),
        (evaluation, "turns (default: 3)"),
        (data, "turns with the samples (default: 7)"),
        (roi, "turns (default: 7; on a GPU 50)"),
        (cost, "rounds (default: 5)"),
        (masks, "turns (default: 7)"),
        (targets, "turns (default: 25)"),
    ):
        each.add_argument("--repeats", type=positive, metavar="N", help=f"timed {turns}")
        threads = 1 if each is data else 2  # a mapper runs in a worker process, which has one
        each.add_argument(
            "--threads",
            type=positive,
            default=threads,
            metavar="N",
            help=f"of a CPU (default: {threads})",
        )
        each.add_argument("--json", metavar="FILE", help="write everything measured there, too")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0. What cannot be measured is a UserError, which the command reports."""
    from ...config import require_detectron2
    from ..data.target import check_place

    for option in ("json", "picture"):
        if path := getattr(args, option, None):
            check_place(path, f"--{option}")
    if args.what == "roi" and args.picture:
        from ...visualization.roi_layers import draw_roi_layers

        print(draw_roi_layers(args.picture))
        return 0
    require_detectron2()
    with _threads(args.threads):
        measure = {
            "roi": _roi,
            "cost": _cost,
            "masks": _masks,
            "targets": _targets,
            "eval": _eval,
            "data": _data,
            "train": _train,
            "infer": _infer,
        }[args.what]
        text, measured = measure(args)
    print(text)
    if args.json:
        write_json_file(args.json, measured)
    return 0


def _roi(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    import torch

    from ...errors import UsageError
    from .roi import CASES, FULL, QUICK, as_text, run_cases

    gpu = args.device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise UsageError(
            f"--device cuda, but PyTorch {torch.__version__} sees no GPU here; use --device cpu"
        )
    dtypes = args.dtypes or (["float32", "bfloat16"] if gpu else ["float32"])
    results, facts = run_cases(
        [case for case in CASES if case.key in args.cases],
        args.sizes or ([7] if args.quick else [7, 14]),
        [getattr(torch, name) for name in dtypes],
        torch.device(args.device),
        args.repeats or (2 if args.quick else 50 if gpu else 7),
        QUICK if args.quick else FULL,
    )
    return as_text(results, facts), {**facts, "results": [r.as_json() for r in results]}


def _cost(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    import torch

    from ...config import load_config
    from ...engine.setup import check_device
    from .cost import as_json, as_text, measure_cost

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cfg = load_config(args.config_file, ["MODEL.DEVICE", device, *args.opts])
    check_device(cfg.MODEL.DEVICE, 1)
    cost = measure_cost(cfg, args.image_size, (args.repeats or 5) if args.time else 0)
    return as_text(cost), {"config_file": args.config_file, "opts": args.opts, **as_json(cost)}


def _masks(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from .masks import as_text, run_masks

    results, facts = run_masks(args.image_size, args.detections, args.repeats or 7)
    return as_text(results, facts), {**facts, "results": [r.as_json() for r in results]}


def _targets(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from .targets import as_text, run_targets

    results, facts = run_targets(args.rois, args.sides, args.repeats or 25)
    return as_text(results, facts), {**facts, "results": [r.as_json() for r in results]}


def _eval(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from . import evaluation, masks

    repeats = args.repeats or 3
    texts: list[str] = []
    measured: dict[str, Any] = {}
    if args.masks:
        pasted, facts = masks.run_masks(args.image_size, args.masks, repeats)
        texts.append(masks.as_text(pasted, facts))
        measured["masks"] = {**facts, "results": [r.as_json() for r in pasted]}
    figures, facts = evaluation.run_evaluation(args.images, args.detections, args.tasks, repeats)
    texts.append(evaluation.as_text(figures, facts))
    measured["figures"] = {**facts, "results": [r.as_json() for r in figures]}
    return "\n\n".join(texts), measured


def _data(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from . import data_file, data_mapper

    texts: list[str] = []
    measured: dict[str, Any] = {}
    if args.images:
        results, facts = data_mapper.run_data_mapper(args.dataset, args.images, args.repeats or 7)
        texts.append(data_mapper.as_text(results, facts))
        measured["samples"] = {**facts, "results": [r.as_json() for r in results]}
    if args.file_images:
        sides, facts = data_file.run_file(
            args.file_images, args.file_instances, args.workers, args.file_repeats
        )
        texts.append(data_file.as_text(sides, facts))
        measured["file"] = {**facts, **{name: side.as_json() for name, side in sides.items()}}
    return "\n\n".join(texts), measured


def _train(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from .train import as_text, run_train, scenes_for

    # Scenes only where nothing else is asked for: a config's own data set is there or refused.
    with contextlib.nullcontext() if args.config_file else scenes_for():
        amp = [] if args.amp in (None, "off") else ["SOLVER.AMP.PRECISION", args.amp]
        amp += [] if args.amp is None else ["SOLVER.AMP.ENABLED", str(args.amp != "off")]
        cfg = _config(args, args.config_file or QUICK_START, amp)
        result = run_train(cfg, args.iterations, args.repeats or 7)
    facts = {"config_file": args.config_file or QUICK_START, "opts": args.opts}
    return as_text(result), {**facts, **result.as_json()}


def _infer(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from .infer import as_text, run_infer

    opts = ["TEST.PRECISION", args.precision] if args.precision else []
    cfg = _config(args, args.config_file, opts)
    result = run_infer(cfg, args.image_size, args.dataset, args.images, args.repeats or 5)
    return as_text(result), {
        "config_file": args.config_file,
        "opts": args.opts,
        **result.as_json(),
    }


def _config(args: argparse.Namespace, config_file: str, opts: list[str]) -> Any:
    """The config with the verb's own options, then the user's overrides."""
    import torch

    from ...config import load_config
    from ...data.registration import register_from
    from ...engine.setup import check_device

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    # A config's ImageNet weights are none of a detector; trained ones come by MODEL.WEIGHTS.
    fixed = ["MODEL.DEVICE", device, "MODEL.WEIGHTS", ""]
    cfg = load_config(config_file, [*fixed, *opts, *args.opts])
    check_device(cfg.MODEL.DEVICE, 1)
    register_from(cfg.DATASETS.REGISTRY)
    return cfg


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads of the CPU for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

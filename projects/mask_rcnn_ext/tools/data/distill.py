"""Labels for unlabelled images, made by a trained model: data distillation (paper, appendix B).

  mask-rcnn-ext data distill --config-file output/config.yaml --weights output/model_final.pth \\
      --images unlabeled2017/ --like coco_2017_train --output labels.json

The model sees each image at several scales, each as it is and mirrored (TEST.AUG); boxes of all
views go through one NMS, masks and keypoint heat maps are averaged. Predictions become labels from
the score on with which the labels have as many objects an image as the labelled set --like. Train
on both: DATASETS.TRAIN with two names.

Predictions are kept in FILE.parts: a run that was stopped goes on when the same command is given
again, and several processes can share the images (--shard).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bench import positive
from .coco_output import add_output_arguments, check_report, next_command, print_notes, write_report
from .source import add_registry_argument, resolve_source
from .target import check_target

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ...engine.distillation import Distilled, LabelledSet, Part, Threshold, Unlabelled

HELP = "label unlabelled images with a trained model (data distillation)"

_NO_MARK = "\0"  # labels may have been corrected by hand: they are replaced with --force only
_MADE_BY = "mask-rcnn-ext data distill"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", required=True, metavar="FILE", help="as for `train`")
    parser.add_argument("--weights", metavar="FILE", help="(default: the config's MODEL.WEIGHTS)")
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR|NAME|FILE",
        help="a folder, a data set's name, or an annotation file that lists images; annotations "
        "are not looked at",
    )
    parser.add_argument(
        "--image-root", metavar="DIR", help="folder of a FILE's images (default: the file's own)"
    )
    parser.add_argument(
        "--like",
        required=True,
        action="append",
        metavar="NAME",
        help="the labelled data set; repeated for a set of several",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="annotation file to write")
    parser.add_argument(
        "--scales",
        type=_scales,
        metavar="S,S,...",
        help="shorter sides, in pixels, at which an image is seen (default: TEST.AUG.MIN_SIZES)",
    )
    parser.add_argument(
        "--proposals",
        metavar="FILE",
        help="of the images, for a model whose RPN was trained apart (docs/proposals.md)",
    )
    parser.add_argument("--no-flip", action="store_true", help="no mirrored views")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N images only")
    parser.add_argument(
        "--per-class", action="store_true", help="a threshold for each class (default: one for all)"
    )
    parser.add_argument(
        "--no-keypoints", action="store_true", help="labels without keypoints in any case"
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="I/N",
        help="do the I-th of N shares (I from 1) and write no labels; when all are done, the "
        "same command without it does",
    )
    add_registry_argument(parser)
    add_output_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides, at the end"
    )


def run(args: argparse.Namespace) -> int:
    """Predict what is missing and write the labels; 0."""
    from ...engine.interrupt import StopRequest

    stop = StopRequest().install()  # exit code 75: the same command goes on
    try:
        return _run(args)
    finally:
        stop.uninstall()


def _run(args: argparse.Namespace) -> int:
    from ...config import load_config, require_detectron2

    require_detectron2()
    from ...data.registration import register_from
    from ...engine.distillation import PART, parts_of, predict_parts, read_labelled, write_labels

    cfg = load_config(args.config_file, args.opts)
    register_from([*args.registry, *cfg.DATASETS.REGISTRY])
    images, listed_by = _images(args)
    output = check_target(
        args.output, "--output", _NO_MARK, inputs=tuple(listed_by), force=args.force
    )
    check_report(args, [*listed_by, str(output)])
    like = read_labelled(args.like)
    cfg = _teacher_config(cfg, args, like)
    keypoints = _wants_keypoints(cfg, like, args.no_keypoints)
    folder, teacher, origin = _teacher(cfg, args, like, output)
    images = images[: args.limit]
    teacher.check_covers(images)
    parts = parts_of(images, folder, PART)
    share, shares = args.shard
    ids = [category["id"] for category in like.categories]
    predict_parts(teacher, parts[share::shares], ids, progress=not args.quiet)
    if shares > 1:
        _say_share(parts, args.shard)
        return 0
    done = write_labels(parts, like, output, origin, keypoints=keypoints, per_class=args.per_class)
    _report(args, done, like, images, folder)
    return 0


def _scales(text: str) -> tuple[int, ...]:
    return tuple(positive(word) for word in text.split(","))


def _shard(text: str) -> tuple[int, int]:
    share, _, shares = text.partition("/")
    if not (share.isdigit() and shares.isdigit() and 1 <= int(share) <= int(shares)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 1 to N, such as 1/4")
    return int(share) - 1, int(shares)


def _images(args: argparse.Namespace) -> tuple[list[Unlabelled], list[str]]:
    """The images, and the annotation file that lists them, if one does."""
    from ...engine.distillation import images_in_folder, images_of_file
    from ...errors import UsageError
    from ..predict_inputs import IMAGES

    if Path(args.images).expanduser().is_dir():
        if args.image_root:
            raise UsageError("--image-root goes with an annotation file; --images is a folder")
        return images_in_folder(Path(args.images).expanduser(), IMAGES), []
    source = resolve_source(args.images, args.image_root)
    return images_of_file(source.json_file, source.image_root), [source.json_file]


def _teacher_config(cfg: CfgNode, args: argparse.Namespace, like: LabelledSet) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    # The labelled set knows left from right, and the classes, where the config's own sets do not.
    own = list(cfg.DATASETS.TRAIN)
    cfg.DATASETS.TRAIN = tuple(own + [name for name in like.names if name not in own])
    if args.scales:
        cfg.TEST.AUG.MIN_SIZES = args.scales
    if args.no_flip:
        cfg.TEST.AUG.FLIP = False
    cfg.freeze()
    return cfg


def _wants_keypoints(cfg: CfgNode, like: LabelledSet, refused: bool) -> bool:
    from ...errors import UsageError

    names = ", ".join(like.names)
    if refused:
        return False
    if like.keypoint_names and not cfg.MODEL.KEYPOINT_ON:
        raise UsageError(
            f"{names} has keypoints, but this model predicts none (MODEL.KEYPOINT_ON False): give "
            "a model that does, or --no-keypoints"
        )
    if cfg.MODEL.KEYPOINT_ON and not like.keypoint_names:
        raise UsageError(
            f"this model predicts keypoints, but {names} has none, so that nothing says how many "
            "to keep: give the set with keypoints, or --no-keypoints"
        )
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if cfg.MODEL.KEYPOINT_ON and count != len(like.keypoint_names):
        raise UsageError(
            f"this model predicts {count} keypoints (MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS), but "
            f"{names} has {len(like.keypoint_names)}: {', '.join(like.keypoint_names)}"
        )
    return bool(cfg.MODEL.KEYPOINT_ON)


def _teacher(
    cfg: CfgNode, args: argparse.Namespace, like: LabelledSet, output: Path
) -> tuple[Path, Any, dict[str, Any]]:
    """The folder of its predictions, the model, and what the labels say of it."""
    from ...data.proposals import load_proposals
    from ...engine.distillation import ViewsTeacher, teacher_key
    from ...engine.weights.checksum import digest
    from ...engine.weights.fetch import local_path
    from ...engine.weights.reconcile import differences
    from ...errors import UsageError

    given = None
    if args.proposals:
        if not Path(args.proposals).is_file():
            raise UsageError(f"--proposals {args.proposals} does not exist")
        given = load_proposals(args.proposals)
    teacher = ViewsTeacher(cfg, args.weights, given)
    if teacher.class_names != like.class_names:
        raise UsageError(
            f"the model's classes are not those of {', '.join(like.names)}: "
            f"{differences(teacher.class_names, like.class_names)}"
        )
    weights = local_path(teacher.cfg.MODEL.WEIGHTS)
    sha256 = digest(weights, "sha256")
    test = teacher.cfg.TEST.AUG
    origin = {
        "description": "labels made by a model, not by people (data distillation)",
        "made_by": _MADE_BY,
        "config": Path(args.config_file).name,
        "weights": weights.name,
        "weights_sha256": sha256,
        "proposals": Path(args.proposals).name if args.proposals else None,
        "views": {
            "shorter_sides": list(test.MIN_SIZES),
            "longest_side": test.MAX_SIZE,
            "mirrored": bool(test.FLIP),
            "count": len(test.MIN_SIZES) * (2 if test.FLIP else 1),
        },
        "least_score": teacher.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
    }
    folder = output.with_name(f"{output.name}.parts")
    contents = [sha256, digest(Path(args.proposals), "sha256")] if args.proposals else [sha256]
    return folder / teacher_key(teacher.cfg, *contents), teacher, origin


def _say_share(parts: list[Part], shard: tuple[int, int]) -> None:
    missing = sum(not part.is_done for part in parts)
    print(
        f"share {shard[0] + 1} of {shard[1]} is done; {missing} of {len(parts)} parts are missing"
    )
    print("Next: " + ("the other shares" if missing else "the same command without --shard"))


def _report(
    args: argparse.Namespace,
    done: Distilled,
    like: LabelledSet,
    images: list[Unlabelled],
    folder: Path,
) -> None:
    for message in done.failed:
        print(f"left out: {message}")
    notes = list(done.notes)
    labelled = sum(os.path.abspath(one.path) in like.files for one in images)
    if labelled:
        notes.append(f"{labelled} of the images are in {', '.join(like.names)}, labelled already")
    print_notes(notes)
    print(
        f"{', '.join(like.names)}: {like.images} images, "
        f"{float(like.per_image()):.3f} objects an image"
    )
    names = like.class_names if args.per_class else [""]
    for name, one in zip(names, done.objects, strict=True):
        print(_line(f"objects {name}".strip(), one))
    if done.keypoints is not None:
        print(_line("keypoints", done.keypoints))
    print(
        f"{args.output}: {done.images} images, {done.annotations} objects, "
        f"{done.annotations / done.images:.3f} an image"
    )
    root = _root_of(images)
    print(f"{folder.parent} has all predictions; it is not needed any more")
    print(next_command(Path(args.output), root))
    facts = {"out": str(args.output), "image_root": root, "objects": done.annotations}
    write_report(
        args, {**facts, "images": done.images, "images_left_out": done.failed, "notes": notes}
    )


def _line(what: str, one: Threshold) -> str:
    from_score = "none" if one.score is None else f"score {one.score:.4f} and above"
    return (
        f"{what}: {from_score}, {one.kept} of {one.available} predictions; "
        f"{float(one.wanted):.1f} wanted"
    )


def _root_of(images: list[Unlabelled]) -> str:
    """The folder that the file names are relative to."""
    first = images[0]
    levels = len(Path(first.file_name).parts)
    return str(first.path.parents[levels - 1])

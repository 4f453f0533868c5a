"""`mask-rcnn-ext scenes`: generate a data set with exact masks, in COCO's or Cityscapes' layout."""

from __future__ import annotations

import argparse
import re
import sys

HELP = (
    "generate pictures with exact masks, boxes and keypoints, as COCO or Cityscapes lays them out"
)


def parse_size(text: str) -> tuple[int, int]:
    """ "160" or "160x320" -> (height, width) in pixels."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a side such as 160 nor a HEIGHTxWIDTH such as 160x320"
        )
    return int(found[1]), int(found[2] or found[1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--images", required=True, type=int, metavar="N", help="number of training images"
    )
    parser.add_argument(
        "--layout",
        choices=("coco", "cityscapes"),
        default="coco",
        help="coco: shapes and persons with keypoints; cityscapes: the same shapes in a street, "
        "with polygons and label images, --size 256x512 for its aspect (default: coco)",
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        default=(160, 160),
        metavar="S",
        help="side in pixels, or HEIGHTxWIDTH; from 32 (default: 160)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="K", help="same seed, same bytes (default: 0)"
    )
    parser.add_argument(
        "--val-images",
        type=int,
        metavar="M",
        help="number of validation images (default: a tenth of N, at least 1)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "both"),
        default="both",
        help="which splits to write (default: both)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="W", help="processes (default: one for each CPU)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace scenes made with other parameters"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Write the splits; 0 if they are there now, 1 if that failed, 2 for a wrong call."""
    from ..data.scenes import generate_splits
    from ..errors import UserError

    held_out = max(1, args.images // 10) if args.val_images is None else args.val_images
    splits = {"train": args.images, "val": held_out}
    if args.split != "both":
        splits = {args.split: splits[args.split]}
    try:
        summaries = generate_splits(
            args.out,
            splits,
            args.size,
            args.seed,
            workers=args.workers,
            progress=not args.quiet,
            overwrite=args.force,
            layout=args.layout,
        )
    except UserError as error:
        print(f"mask-rcnn-ext scenes: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mask-rcnn-ext scenes: interrupted; the same command starts over", file=sys.stderr)
        return 1
    for summary in summaries:
        counts = summary.counts
        state = "written" if summary.written else "already there, nothing done"
        print(
            f"{summary.folder}: {counts['images']} images, "
            f"{counts['instances']} objects, {counts['crowds']} crowds, "
            f"{counts['empty_images']} images without objects "
            f"(sha256 {summary.sha256[:12]}; {state})"
        )
    return 0

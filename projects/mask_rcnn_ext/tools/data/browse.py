"""Make one HTML page of samples: masks, boxes, labels, annotation and image ids over the pictures.

The page is one file that works offline; its filters by class and size are kept in the address
(page.html#class=person&min=32). With --augmented it shows what a model gets in training: several
draws of each image, with all augmentations of a config together and with each of them alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench import natural, positive
from .source import Source, add_source_arguments, resolve_source
from .target import check_target

if TYPE_CHECKING:
    import numpy as np

    from ...data.coco_table import CocoTable
    from ...visualization.browse_augmented import DrawMaker
    from ...visualization.browse_page import Card

HELP = "an HTML page of samples with masks, boxes and ids; --augmented: what the model gets"
_CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
_NOTE_FROM = 25e6  # bytes of a page that browsers are slow with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument(
        "--out", required=True, metavar="HTML", help="the page, or a folder to put index.html into"
    )
    parser.add_argument(
        "--count",
        type=positive,
        metavar="N",
        help="number of images (default: 48, with --augmented 6)",
    )
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="K", help="other images, same page for the same"
    )
    parser.add_argument(
        "--classes", nargs="+", default=[], metavar="NAME", help="only images with one of these"
    )
    parser.add_argument(
        "--min-size",
        type=positive,
        default=0,
        metavar="S",
        help="only images with an instance of this size, square root of its area in pixels",
    )
    parser.add_argument(
        "--ids", nargs="+", default=[], metavar="ID", help="these images, by their ids"
    )
    parser.add_argument(
        "--picture-size",
        type=positive,
        default=640,
        metavar="P",
        help="longer side of an embedded picture, pixels at most (default: 640)",
    )
    parser.add_argument(
        "--augmented", action="store_true", help="draws of a config's training mapper, too"
    )
    parser.add_argument(
        "--draws", type=positive, default=4, metavar="D", help="draws of an image (default: 4)"
    )
    parser.add_argument(
        "--config-file", metavar="FILE", help=f"for --augmented (default: {_CONFIG} with bitmasks)"
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides for --augmented; the last option of the line",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there already")


def run(args: argparse.Namespace) -> int:
    """Write the page; 0."""
    from ...data.selection import select_images
    from ...errors import UsageError, UserError
    from ...files import atomic_write
    from ...visualization.browse_page import GENERATOR, browse_page
    from .reading import read_with_progress

    if not args.augmented and (args.config_file or args.opts):
        raise UsageError("--config-file and --opts go with --augmented")
    source = resolve_source(args.source, args.images, args.registry)
    target = Path(args.out)
    if not target.suffix:
        target = target / "index.html"
        _make_folder(target.parent)
    check_target(target, "--out", GENERATOR, inputs=(source.json_file,), force=args.force)
    table = read_with_progress(source.json_file)
    rows = select_images(
        table,
        args.count or (6 if args.augmented else 48),
        args.seed,
        classes=args.classes,
        min_size=args.min_size,
        ids=args.ids,
    )
    draw = _draw_maker(args, source, table, rows) if args.augmented else None
    cards = list(_cards(table, source, rows, args.picture_size, draw))
    page = browse_page(source.name, _subtitle(args, table, rows), cards)
    try:
        with atomic_write(target) as file:
            file.write(page)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    instances = sum(len(card.picture.instances) for card in cards)
    print(
        f"{target}: {_counted(len(cards), 'image')}, {_counted(instances, 'instance')}, "
        f"{len(page) / 1e6:.1f} MB"
    )
    noted = [card for card in cards if card.note]
    if noted:
        number = _counted(len(noted), "image")
        print(f"{number} could not be shown as they should; the first: {noted[0].note}")
    if len(page) > _NOTE_FROM:
        print("A smaller --count or --picture-size makes a page that browsers open faster.")
    return 0


def _cards(
    table: CocoTable, source: Source, rows: np.ndarray, longest: int, draw: DrawMaker | None
) -> Iterator[Card]:
    import dataclasses

    from tqdm import tqdm

    from ...errors import DataError
    from ...visualization.browse_cards import CardMaker

    make = CardMaker(table, source.image_root, longest)
    # None: only where stderr is a terminal.
    for index, row in enumerate(tqdm(rows.tolist(), desc="images", disable=None, leave=False)):
        card = make(row)
        # An image that cannot be shown cannot be augmented either; its card says why.
        if draw and card.picture.source:
            try:
                card = dataclasses.replace(card, rows=draw(index))
            except DataError as error:
                card = dataclasses.replace(card, note=str(error))
        yield card


def _draw_maker(
    args: argparse.Namespace, source: Source, table: CocoTable, rows: np.ndarray
) -> DrawMaker:
    from ...config import load_config
    from ...data.mappers import build_mapper
    from ...data.records import CocoRecords
    from ...data.statistics import class_name
    from ...visualization.browse_augmented import DrawMaker
    from ...visualization.browse_cards import class_order, skeleton_of

    # Without a config of the user's own, the form that takes polygons and RLE alike.
    opts = [*([] if args.config_file else ["INPUT.MASK_FORMAT", "bitmask"]), *args.opts]
    if source.registered:
        # The keypoint schema of a flip is that of the training sets.
        opts = ["DATASETS.TRAIN", f"('{source.name}',)", *opts]
    cfg = load_config(args.config_file or _CONFIG, opts)
    order = class_order(table)
    return DrawMaker(
        CocoRecords(table, source.image_root, rows),
        build_mapper(cfg, True),
        class_names=[class_name(table, row) for row in order],
        skeletons=[skeleton_of(table, row) for row in order],
        image_format=cfg.INPUT.FORMAT,
        draws=args.draws,
        seed=args.seed,
        longest=args.picture_size,
    )


def _subtitle(args: argparse.Namespace, table: CocoTable, rows: np.ndarray) -> str:
    parts = [f"{len(rows):,} of {table.num_images:,} images"]
    if args.ids:
        parts.append("chosen by their ids")
    else:
        parts.append(f"spread over the file with seed {args.seed}")
    if args.classes and not args.ids:
        parts.append("with " + " or ".join(args.classes))
    if args.min_size and not args.ids:
        parts.append(f"an instance of at least {args.min_size} pixels")
    if args.augmented:
        parts.append(f"what the mapper of {args.config_file or _CONFIG} makes of them")
    if args.opts:
        parts.append(" ".join(args.opts))
    return ", ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


def _make_folder(folder: Path) -> None:
    from ...errors import UsageError

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: cannot make the folder {folder}: {error.strerror}") from error

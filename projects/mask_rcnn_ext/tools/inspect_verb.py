"""`mask-rcnn-ext inspect`: what a model does with one image, stage by stage, as one HTML page.

  mask-rcnn-ext inspect shot.jpg --config-file output/config.yaml \\
      --weights output/model_final.pth --out shot.html

shows anchors, objectness and proposals before and after suppression, RoIs by pyramid level, where
the RoI layer samples the feature map, the masks of the mask head, and the detections. With
--annotations RoIs are sampled as in training, and masks stand beside their targets. The page holds
the numbers of its pictures as JSON and needs no network and no script.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bench import natural, positive

if TYPE_CHECKING:
    from ..engine.stage_records import Stages
    from ..engine.trained import TrainedModel

HELP = "one image through a model, stage by stage, as an HTML page"
_MASKS = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="as for `train`")
    parser.add_argument("--weights", metavar="FILE", help="(default: the config's MODEL.WEIGHTS)")
    parser.add_argument("--out", required=True, metavar="HTML", help="the page")
    parser.add_argument(
        "--annotations",
        metavar="NAME|FILE",
        help="the data set, or annotation file in COCO's form, that the image is in: for targets",
    )
    parser.add_argument(
        "--detection",
        type=natural,
        default=0,
        metavar="N",
        help="whose RoI is shown in the RoI layer, counted from 0, the best (default: 0)",
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        metavar="S",
        help="leave out detections below this score, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--top",
        type=positive,
        default=100,
        metavar="N",
        help="boxes of a stage, the best (default: 100)",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: the config's)")
    parser.add_argument("--json", metavar="FILE", help="the page's numbers as a file of their own")
    parser.add_argument("--force", action="store_true", help="replace a file that is there already")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides; the last option of the line",
    )


def run(args: argparse.Namespace) -> int:
    """Write the page; 0."""
    from ..engine.predictor import read_rgb
    from ..engine.stages import collect_stages
    from ..engine.trained import load_trained
    from ..errors import UserError
    from ..files import atomic_write, write_json
    from ..visualization.inspect_numbers import numbers_of
    from ..visualization.inspect_page import GENERATOR, inspect_page
    from .data.target import check_target

    inputs = (args.image,)
    target = check_target(args.out, "--out", GENERATOR, inputs=inputs, force=args.force)
    if args.json:
        check_target(args.json, "--json", '"original_size"', inputs=inputs, force=args.force)
    image = read_rgb(args.image)
    trained = load_trained(
        args.config_file, args.weights, args.opts, score_threshold=args.score, device=args.device
    )
    one_input = trained.input_of(image)
    truth = _truth(trained, args.image, args.annotations) if args.annotations else None
    stages = collect_stages(trained.model, one_input, truth, detection=args.detection)
    numbers = numbers_of(stages, trained.class_names, top=args.top, masks=_MASKS)
    page = inspect_page(
        numbers,
        _rgb(stages, trained),
        _overlay(stages, trained, image, one_input),
        name=Path(args.image).name,
        model=f"{Path(args.config_file).name}, weights {Path(trained.cfg.MODEL.WEIGHTS).name}",
        notes=_notes(stages, has_truth=truth is not None),
    )
    try:
        with atomic_write(target) as file:
            file.write(page)
        if args.json:
            write_json(args.json, numbers)
    except OSError as error:
        where = error.filename or target
        raise UserError(f"cannot write {where}: {error.strerror or error}") from error
    found = "" if stages.detections is None else f", {len(stages.detections)} detections"
    print(f"{target}: {len(stages.proposals.logits)} proposals{found}, {len(page) / 1e6:.1f} MB")
    return 0


def _rgb(stages: Stages, trained: TrainedModel) -> Any:
    """(h, w, 3) uint8, the network's input in RGB."""
    pixels = stages.image.permute(1, 2, 0).numpy()
    return pixels[:, :, ::-1] if trained.cfg.INPUT.FORMAT == "BGR" else pixels


def _overlay(stages: Stages, trained: TrainedModel, image: Any, one_input: dict[str, Any]) -> Any:
    from ..evaluation.raw_masks import to_original_frame
    from ..visualization.overlay import draw_prediction

    if stages.detections is None:
        return None
    size = (stages.image.shape[1], stages.image.shape[2])
    found = to_original_frame(stages.detections, one_input, size)
    return draw_prediction(image, trained.prediction_of(found))


def _notes(stages: Stages, *, has_truth: bool) -> list[str]:
    """What the page cannot show, and why."""
    if stages.detections is None:
        return [
            "This model is a proposal network (MODEL.META_ARCHITECTURE ProposalNetwork): there is "
            "no second stage."
        ]
    notes = []
    if stages.detected_masks is None:
        notes.append("This model has no mask branch (MODEL.MASK_ON is False).")
    if not has_truth:
        notes.append(
            "No annotations were given: RoIs are the proposals of inference, and masks have no "
            "targets."
        )
    elif stages.sampled_masks is None and stages.detected_masks is not None:
        notes.append("No sampled RoI is foreground: there are no targets.")
    return notes


def _truth(trained: TrainedModel, image: str, source_text: str) -> Any:
    """The image's objects in the frame of the network's input, as the config's masks are kept.

    Raises:
        UserError: the image is not in that set, or an annotation cannot be used
    """
    import numpy as np

    from ..data.augmentations.build import build_augmentations
    from ..data.mappers import CocoMapper
    from ..data.records import CocoRecords
    from ..errors import UsageError
    from .data.reading import read_with_progress
    from .data.source import resolve_source

    source = resolve_source(source_text)
    table = read_with_progress(source.json_file)
    name = Path(image).name
    rows = [i for i in range(table.num_images) if Path(table.file_name(i)).name == name]
    if not rows:
        raise UsageError(f"{source.json_file} has no image {name}")
    if len(rows) > 1:
        matching = [i for i in rows if Path(image).as_posix().endswith(f"/{table.file_name(i)}")]
        rows = matching or rows
    cfg = trained.cfg
    if len(table.categories) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise UsageError(
            f"{source.json_file} has {len(table.categories)} categories, the model "
            f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes; it was trained on another set"
        )
    record = CocoRecords(table, source.image_root, np.array(rows[:1]))[0]
    mapper = CocoMapper(
        True,
        augmentations=build_augmentations(cfg, is_train=False),
        image_format=cfg.INPUT.FORMAT,
        use_instance_mask=cfg.MODEL.MASK_ON,
        instance_mask_format=cfg.INPUT.MASK_FORMAT,
    )
    return mapper({**record, "file_name": image})["instances"]

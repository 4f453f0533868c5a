"""`mask-rcnn-ext predict`: find objects in images, folders and videos.

  mask-rcnn-ext predict --config-file output/config.yaml --weights output/model_final.pth \\
      shots/ clip.mp4 --out found

writes DIR/predictions.json (COCO's form: images, categories, annotations with scores and masks as
run lengths), DIR/overlays/ (each picture or video with what was found) and, with --instance-maps,
DIR/instances/ (16-bit PNGs: k marks the image's k-th detection). An input that cannot be read is
named at the end, the others are done, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bench import positive

if TYPE_CHECKING:
    import numpy as np

    from ..engine.predictor import Predictor
    from .predict_inputs import Input
    from .predict_output import PredictionsFile

HELP = "find objects in images, folders and videos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, video, folder, pattern such as 'shots/*.jpg', or - for a list on stdin",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="as for `train`")
    parser.add_argument("--weights", metavar="FILE", help="(default: the config's MODEL.WEIGHTS)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        metavar="S",
        help="leave out detections below this score, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--max-detections",
        type=positive,
        metavar="N",
        help="at most so many in an image (default: TEST.DETECTIONS_PER_IMAGE)",
    )
    parser.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="images at once (default: 1)"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: the config's)")
    parser.add_argument(
        "--augment", action="store_true", help="test-time augmentation, scales of TEST.AUG"
    )
    parser.add_argument("--no-overlays", action="store_true", help="draw nothing")
    parser.add_argument(
        "--instance-maps", action="store_true", help="write a 16-bit PNG an image, too"
    )
    parser.add_argument("--force", action="store_true", help="replace results in DIR")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides; the last option of the line",
    )


def run(args: argparse.Namespace) -> int:
    """Predict and write; 1 if an input could not be used."""
    from ..engine.predictor import Predictor
    from ..errors import UsageError
    from .predict_inputs import expand_inputs
    from .predict_output import check_free, predictions_file

    out = Path(args.out)
    results = [out / name for name in ("overlays", "instances")]
    check_free(out, force=args.force)
    inputs = expand_inputs(args.inputs, results=results)
    predictor = Predictor(
        args.config_file,
        args.weights,
        args.opts,
        score_threshold=args.score,
        max_detections=args.max_detections,
        device=args.device,
        augment=args.augment,
    )
    if args.instance_maps and not predictor.cfg.MODEL.MASK_ON:
        raise UsageError("--instance-maps, but this model predicts no masks (MODEL.MASK_ON False)")
    names, ids = predictor.class_names, predictor.category_ids
    with predictions_file(out, names, ids) as file:
        work = _Work(predictor, out, file, args)
        work.images([one for one in inputs if not one.is_video])
        for one in inputs:
            if one.is_video:
                work.video(one)
    print(
        f"{out / 'predictions.json'}: {file.annotations} object{'s' * (file.annotations != 1)} in "
        f"{file.images} image{'s' * (file.images != 1)}"
        + (", of videos each frame" if any(one.is_video for one in inputs) else "")
    )
    for message in work.failed:
        print(f"mask-rcnn-ext predict: {message}", file=sys.stderr)
    if work.failed:
        print(
            f"mask-rcnn-ext predict: {len(work.failed)} of {len(inputs)} inputs could not be used",
            file=sys.stderr,
        )
    return 1 if work.failed else 0


class _Work:
    """One call of the command; `failed` has a message for each input that could not be used."""

    def __init__(
        self, predictor: Predictor, out: Path, file: PredictionsFile, args: argparse.Namespace
    ):
        self._predictor, self._out, self._file, self._args = predictor, out, file, args
        self.failed: list[str] = []

    def images(self, inputs: list[Input]) -> None:
        from ..data.scenes.progress import Progress

        line = Progress("images", len(inputs), not self._args.quiet)
        for batch in _batches(self._readable(inputs, line), self._args.batch):
            found = self._predictor([image for _, image in batch])
            for (one, image), prediction in zip(batch, found, strict=True):
                self._file.add(one.name, prediction)
                self._draw(one.name, image, prediction)
                line.advance()
        line.close()

    def _readable(self, inputs: list[Input], line: Any) -> Iterator[tuple[Input, np.ndarray]]:
        from ..engine.predictor import read_rgb
        from ..errors import DataError

        for one in inputs:
            try:
                image = read_rgb(one.path)
            except DataError as error:
                self.failed.append(str(error))
                line.advance()
                continue
            yield one, image

    def _draw(self, name: str, image: np.ndarray, prediction: Any) -> None:
        from ..visualization.overlay import draw_prediction
        from .predict_output import write_picture

        if not self._args.no_overlays:
            target = (self._out / "overlays" / name).with_suffix(".jpg")
            write_picture(target, draw_prediction(image, prediction))
        if self._args.instance_maps:
            target = (self._out / "instances" / name).with_suffix(".png")
            write_picture(target, prediction.instance_map())

    def video(self, one: Input) -> None:
        from ..errors import DataError
        from .predict_video import VideoReader, VideoWriter

        target = (self._out / "overlays" / one.name).with_suffix(".mp4")
        try:
            reader = VideoReader(one.path)
        except DataError as error:
            self.failed.append(str(error))
            return
        writer = VideoWriter(target, reader.rate)
        complete = False
        try:
            try:
                self._frames(one, reader, None if self._args.no_overlays else writer)
            except DataError as error:  # what decodes before it is kept
                self.failed.append(str(error))
            complete = True
        finally:
            writer.close(complete=complete)

    def _frames(self, one: Input, reader: Any, writer: Any) -> None:
        from ..data.scenes.progress import Progress
        from ..visualization.overlay import draw_prediction
        from .predict_output import write_picture

        line = Progress(one.name, reader.announced, not self._args.quiet and reader.announced > 0)
        number = 0
        for batch in _batches(reader, self._args.batch):
            for frame, prediction in zip(batch, self._predictor(batch), strict=True):
                self._file.add(one.name, prediction, number)
                if writer is not None:
                    writer.write(draw_prediction(frame, prediction, enlarge=False))
                if self._args.instance_maps:
                    folder = self._out / "instances" / one.name
                    write_picture(folder / f"{number:06d}.png", prediction.instance_map())
                number += 1
                line.advance()
        line.close()


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

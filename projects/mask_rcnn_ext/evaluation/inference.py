"""The loop over a test set: detect, encode the masks, hand both to the evaluator.

Masks become run lengths in worker processes while the model goes on with the next image. An image
that does not decode is left out, named and counted; the others are still evaluated.
"""

from __future__ import annotations

import datetime
import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Iterable, Sequence, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from detectron2.evaluation import DatasetEvaluator, inference_context
from detectron2.utils import comm
from detectron2.utils.logger import log_every_n_seconds

from ..data.mappers.forgiving import FAILED
from ..ops.rle import RLE
from .raw_masks import Encoder, detect

_WAITING_IMAGES = 64  # an image of 100 masks waits with 0.3 MB
_SECONDS_BETWEEN_LINES = 5
_WARM_UP = 5  # batches that are slower than the others

Waiting = tuple[dict[str, Any], dict[str, Any], Future[list[RLE]] | None]


class Batches(Sized, Iterable[Sequence[dict[str, Any]]], Protocol):
    """A test loader: batches of samples, and how many of them."""


@dataclass
class Inference:
    """What an evaluation ended with.

    results: of the evaluator; {} in processes that are not the first
    failed: messages, a line an image that could not be used, of all processes in the first
    images: how many were evaluated in this process
    """

    results: dict[str, Any]
    failed: list[str] = field(default_factory=list)
    images: int = 0


def run_inference(
    model: torch.nn.Module,
    batches: Batches,
    evaluator: DatasetEvaluator,
    *,
    encoding_processes: int = 0,
) -> Inference:
    """
    Args:
        model: any of Detectron2's; the masks of an R-CNN reach the evaluator as
            `pred_mask_rles`, other models' as they are
        batches: of the test set. A sample with the key "failed" stands for an image that cannot
            be used and holds the message
        evaluator: gets each image with its detections, in order
        encoding_processes: how many processes turn masks into run lengths; 0 does it in this one
    """
    logger = logging.getLogger(__name__)
    logger.info("Inference on %d batches", len(batches))
    evaluator.reset()
    failed: list[str] = []
    pace = _Pace(len(batches))
    with ExitStack() as stack:
        stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        encoder = Encoder(_pool(stack, encoding_processes))
        waiting: deque[Waiting] = deque()
        for batch in batches:
            failed += [sample[FAILED] for sample in batch if FAILED in sample]
            usable = [sample for sample in batch if FAILED not in sample]
            if usable:
                outputs = detect(model, usable)
                for sample, output in zip(usable, outputs, strict=True):
                    waiting.append((sample, output, _submit(encoder, output)))
            while waiting and (len(waiting) > _WAITING_IMAGES or encoder.pool is None):
                _hand_over(evaluator, waiting.popleft())
            pace.step(len(usable))
        while waiting:
            _hand_over(evaluator, waiting.popleft())
    pace.end()
    results = evaluator.evaluate() or {}
    gathered = [message for part in comm.gather(failed) for message in part]
    return Inference(results, gathered, pace.images)


def _pool(stack: ExitStack, processes: int) -> ProcessPoolExecutor | None:
    if not processes:
        return None
    # A forked process would inherit threads and a GPU's state that it cannot use.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,))
    return stack.enter_context(pool)


def _submit(encoder: Encoder, output: dict[str, Any]) -> Future[list[RLE]] | None:
    return encoder.submit(output["instances"]) if "instances" in output else None


def _hand_over(evaluator: DatasetEvaluator, one: Waiting) -> None:
    sample, output, rles = one
    if rles is not None:
        output["instances"].pred_mask_rles = rles.result()
    evaluator.process([sample], [output])


class _Pace:
    """Progress lines, as Detectron2's users know them, and the time that it took."""

    def __init__(self, total: int):
        self._total = total
        self._done = 0
        self._start = time.perf_counter()
        self._counted_from = 0
        self.images = 0

    def step(self, images: int) -> None:
        self._done += 1
        self.images += images
        if self._done == min(_WARM_UP, self._total - 1):
            self._start, self._counted_from = time.perf_counter(), self._done
        elif self._done > 2 * self._counted_from:
            each = self._seconds_each()
            eta = datetime.timedelta(seconds=int(each * (self._total - self._done)))
            log_every_n_seconds(
                logging.INFO,
                f"Inference done {self._done}/{self._total}. {each:.4f} s/iter. ETA={eta}",
                n=_SECONDS_BETWEEN_LINES,
                name=__name__,
            )

    def end(self) -> None:
        logging.getLogger(__name__).info(
            "Inference on %d images: %.4f s a batch in this process, masks encoded",
            self.images,
            self._seconds_each(),
        )

    def _seconds_each(self) -> float:
        counted = max(1, self._done - self._counted_from)
        return (time.perf_counter() - self._start) / counted

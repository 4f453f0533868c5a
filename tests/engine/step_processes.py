"""What each of two processes does in test_step_processes.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from step_toys import BAD, FAR, From, Keeping, histories, run_steps, sgd, toy_batches, toy_model
from torch.nn.parallel import DistributedDataParallel

from mask_rcnn_ext.engine.step import TrainStep
from mask_rcnn_ext.engine.step_failures import NonFinite

BATCH = 8


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    found = {
        "good": _train(rank, parts=2),
        "skip": _train(rank, bad=[1], on_nonfinite="skip"),
        "far": _train(rank, bad=[1], mark=FAR, on_nonfinite="skip"),
        "raise": _train(rank, bad=[1]),
    }
    torch.save(found, Path(folder) / f"found{rank}.pth")
    torch.distributed.destroy_process_group()


def _train(rank: int, bad: Any = (), mark: str = BAD, **keywords: Any) -> dict[str, Any]:
    """Three steps; the last sample of a bad batch is the second process's."""

    def share():
        for batch in toy_batches(BATCH, bad=bad, mark=mark):
            yield batch[rank::2]

    model = DistributedDataParallel(toy_model())
    step = TrainStep(model, From(share), sgd(model), **keywords)
    step.black_box = Keeping()
    error, storage = "", None
    try:
        storage = run_steps(step, 3)
    except NonFinite as caught:
        error = str(caught)
    return {
        "error": error,
        "skipped": step.skipped,
        "recorded": len(step.black_box.failures),
        "weights": model.module.state_dict(),
        "losses": histories(storage) if storage is not None else {},
    }

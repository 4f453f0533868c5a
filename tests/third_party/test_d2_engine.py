"""Engine: several processes on a CPU, mixed precision anywhere, schedulers."""

import json
import subprocess

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("ours")

# Two processes average their gradients and gather what they have.
TWO_PROCESSES = """
import json, sys
import torch
from torch import nn
from detectron2.engine import create_ddp_model, launch
from detectron2.utils import comm

def main(folder):
    rank = comm.get_rank()
    model = create_ddp_model(nn.Linear(2, 1, bias=False))
    model(torch.full((1, 2), 1.0 + rank)).sum().backward()
    gathered = {
        "size": comm.get_world_size(),
        "local": comm.get_local_rank(),
        "grad": model.module.weight.grad.tolist(),
        "all_gather": comm.all_gather({"rank": rank, "long": "x" * 10 ** rank}),
        "gather": comm.gather(rank, dst=1),
        "seeds": len(set(comm.all_gather(comm.shared_random_seed()))),
    }
    reduced = comm.reduce_dict({"loss": torch.tensor(float(rank))})
    gathered["reduced"] = reduced["loss"].item() if rank == 0 else None
    comm.synchronize()
    with open(f"{folder}/{rank}.json", "w") as stream:
        json.dump(gathered, stream)

if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(sys.argv[1],))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA, launch() takes its devices")
def test_two_processes_on_a_cpu(tmp_path, strict_python, clean_env):
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    result = subprocess.run(
        [*strict_python, "two.py", str(tmp_path)],
        cwd=tmp_path,
        env={**clean_env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    for rank in range(2):
        got = json.loads((tmp_path / f"{rank}.json").read_text())
        assert got == {
            "size": 2,
            "local": rank,
            "grad": [[1.5, 1.5]],
            "all_gather": [{"rank": 0, "long": "x"}, {"rank": 1, "long": "x" * 10}],
            "gather": [0, 1] if rank == 1 else [],
            "seeds": 1,
            "reduced": 0.5 if rank == 0 else None,
        }


def test_one_process_is_left_alone():
    from detectron2.engine import create_ddp_model
    from detectron2.utils import comm

    model = torch.nn.Linear(1, 1)
    assert create_ddp_model(model) is model
    assert comm.all_gather(3) == comm.gather(3) == [3]


@pytest.mark.filterwarnings("error")
def test_mixed_precision_on_a_cpu():
    from detectron2.engine import AMPTrainer
    from detectron2.utils.events import EventStorage

    dtypes = []

    class Model(torch.nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            dtypes.append(y.dtype)
            return {"loss": y.float().square().mean()}

    model = Model(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AMPTrainer(model, [torch.ones(3, 4)] * 9, optimizer)
    before = model.weight.detach().clone()
    with EventStorage(0):
        trainer.train(0, 5)
    losses = trainer.storage.history("total_loss").values()
    assert set(dtypes) == {torch.bfloat16}
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)
    assert losses[-1][0] < losses[0][0]
    state = trainer.state_dict()
    AMPTrainer(model, [0], optimizer).load_state_dict(state)
    assert np.isfinite(state["grad_scaler"]["scale"])


def test_schedulers_are_torchs():
    from detectron2 import solver
    from detectron2.engine import hooks

    base = torch.optim.lr_scheduler.LRScheduler
    assert solver.LRScheduler is base
    for ours in (solver.LRMultiplier, solver.WarmupCosineLR, solver.WarmupMultiStepLR):
        assert issubclass(ours, base)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    hook = hooks.LRScheduler(optimizer, schedule)
    assert hook.state_dict() == schedule.state_dict() != {}
    hook.load_state_dict({**schedule.state_dict(), "last_epoch": 5})
    assert schedule.last_epoch == 5


def test_deeplab_scheduler():
    from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR

    assert issubclass(WarmupPolyLR, torch.optim.lr_scheduler.LRScheduler)

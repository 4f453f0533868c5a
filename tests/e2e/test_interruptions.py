"""Interrupted equals uninterrupted: SIGKILL anywhere, and signals that ask politely."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from runner import TINY, Runner
from same_run import differences
from zygote import Zygote

RUN = TINY | {
    "SOLVER.MAX_ITER": "24",
    "SOLVER.CHECKPOINT_PERIOD": "5",
    "SOLVER.CHECKPOINTS_KEPT": "2",
    "TEST.EVAL_PERIOD": "8",
    "TEST.BEST_METRIC": "bbox/AP",
    "MODEL.EMA.ENABLED": "True",
    "LOG.PERIOD": "3",
}


class Run(Runner):
    """A run that evaluates, averages, and saves now and then."""

    def command(self, *flags: str, **overrides: str) -> list[str]:
        named = {key.replace(".", "__"): value for key, value in RUN.items()}
        return super().command(*flags, **named | overrides)

    def finish(self, *flags: str, **overrides: str) -> float:
        """Seconds that it took to its end."""
        start = time.monotonic()
        result = self(*flags, **overrides)
        assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
        return time.monotonic() - start


@pytest.fixture
def new_run(scenes_root: Path, tmp_path: Path, repo_root: Path) -> Run:
    return Run(repo_root, scenes_root, tmp_path / "run")


@pytest.fixture(scope="module")
def undisturbed(scenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = Path(__file__).resolve().parents[2]
    run = Run(root, scenes_root, tmp_path_factory.mktemp("undisturbed") / "run")
    run.finish()
    return run


def kill_at_random(
    run: Run, zygote: Zygote, kills: int, longest: float, *flags: str, **overrides: str
) -> int:
    """Start the same command, kill it with all its processes; how often, then let it finish."""
    chance = random.Random(5)
    killed = 0
    while killed < kills:
        pid = run.start(run.command(*flags, **overrides))
        time.sleep(chance.uniform(0.2, longest))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if zygote.wait() == 0:
            return killed  # it was faster
        killed += 1
    run.finish(*flags, **overrides)
    return killed


def test_a_run_that_is_killed_ends_with_the_same_bits(zygote, undisturbed, new_run, tmp_path):
    again = Run(new_run.root, new_run.datasets, tmp_path / "again")
    length = again.finish()
    assert differences(undisturbed.out, again.out) == []
    killed = kill_at_random(new_run, zygote, 5, length / 2)
    assert killed >= 3, killed
    assert differences(undisturbed.out, new_run.out) == []
    assert "Going on from model_" in (new_run.out / "log.txt").read_text()


def wait_for(run: Run, text: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while text not in run.output()[0]:
        assert time.monotonic() < end, run.output()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGTERM, "iter: 1/"),
        (signal.SIGUSR1, "Inference on"),
        (signal.SIGINT, "Saving checkpoint"),
    ],
)
def test_a_signal_saves_and_asks_for_another_run(zygote, undisturbed, new_run, number, when):
    pid = new_run.start(new_run.command())
    wait_for(new_run, when)
    os.killpg(pid, number)  # as a scheduler or a terminal does: data-loader workers get it, too
    assert zygote.wait() == 75
    out, err = new_run.output()
    assert "run the same command again" in err
    assert "Traceback" not in out + err, (out + err)[-2000:]
    assert json.loads((new_run.out / "run.json").read_text())["state"] == "stopped"
    torch.load(new_run.out / (new_run.out / "last_checkpoint").read_text(), weights_only=True)
    new_run.finish()
    assert differences(undisturbed.out, new_run.out) == []


def test_a_finished_run_says_so_and_does_nothing(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.out.glob("model_*")}
    result = undisturbed()
    assert result.returncode == 0
    assert "is finished" in result.stdout
    assert {p: p.stat().st_mtime_ns for p in undisturbed.out.glob("model_*")} == before


def test_another_config_is_refused_without_resume(undisturbed):
    result = undisturbed(SOLVER__BASE_LR="0.5")
    assert result.returncode == 2
    assert "SOLVER.BASE_LR: 0.001 -> 0.5 (changes the training)" in result.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("processes", "start"), [(1, 2.0), (2, 8.0)])
def test_twenty_kills_of_a_run_of_200_iterations(zygote, new_run, tmp_path, processes, start):
    """`start`: about the seconds until the first step, so that many kills fall behind it."""
    flags = ["--num-gpus", str(processes)]
    settings = {"SOLVER__MAX_ITER": "200", "TEST__EVAL_PERIOD": "50"}
    undisturbed = Run(new_run.root, new_run.datasets, tmp_path / "undisturbed")
    length = undisturbed.finish(*flags, **settings)
    killed = kill_at_random(new_run, zygote, 20, start + length / 8, *flags, **settings)
    assert killed == 20, killed
    assert differences(undisturbed.out, new_run.out) == []
    starts = json.loads((new_run.out / "run.json").read_text())["starts"]
    assert sum(one["iteration"] > 0 for one in starts) >= 3, starts

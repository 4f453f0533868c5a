"""`mask-rcnn-ext submit`: what SLURM gets to see, and one preemption on this machine."""

from __future__ import annotations

import argparse
import builtins
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.tools import submit
from mask_rcnn_ext.tools.submit import TrainingJob

CONFIG = ("--config-file", "quickstart/mask_rcnn_R_18_FPN_scenes.yaml")


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers()  # as in cli.py
    submit.add_arguments(verbs.add_parser("submit"))
    return parser.parse_args(["submit", *words])


def call(*words: str) -> int:
    return submit.run(parse(*words))


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit", reason="needs submitit, the extra slurm")


@pytest.fixture
def cluster(submitit, tmp_path, monkeypatch) -> Path:
    """Programs that look like SLURM's; the folder where sbatch leaves what it got."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {
        "srun": "exit 0",
        "sbatch": f'cp "$1" {tmp_path}/batch.sh; echo Submitted batch job 4711',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tmp_path


def test_the_batch_script_of_a_job(cluster, capsys):
    code = call(
        "--partition", "gpu", "--nodes", "2", "--gpus-per-node", "4", "--hours", "1.5",
        "--folder", str(cluster / "logs"), "--name", "r50", "--comment", "before the deadline",
        "--slurm", "account=vision", "--slurm", "exclusive", "--", *CONFIG, "SEED", "3",
    )  # fmt: skip
    assert code == 0
    script = (cluster / "batch.sh").read_text()
    for line in (
        "--partition=gpu",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=4",
        "--cpus-per-task=32",
        "--time=90",
        "--job-name=r50",
        "--comment='before the deadline'",
        "--account=vision",
        "--exclusive",
        "--requeue",
        "--signal=USR1@180",
        "--open-mode=append",
    ):
        assert f"#SBATCH {line}\n" in script
    out = capsys.readouterr().out
    assert "job 4711 is submitted" in out
    assert f"tail -F {cluster}/logs/4711_0_log.out" in out
    assert "scancel 4711" in out
    pickled = cluster / "logs" / "4711_submitted.pkl"
    from submitit.core.utils import DelayedSubmission

    delayed = DelayedSubmission.load(pickled)
    assert delayed.function.words == [*CONFIG, "SEED", "3"]
    assert delayed.function.processes == 4
    assert delayed._timeout_countdown == 20


def test_a_job_on_cpus_asks_for_no_gpu(cluster):
    call("--gpus-per-node", "0", "--folder", str(cluster / "logs"), "--cpus-per-task", "3", "--",
         *CONFIG, "--num-gpus", "2", "MODEL.DEVICE", "cpu")  # fmt: skip
    script = (cluster / "batch.sh").read_text()
    assert "gpu" not in re.sub(r"(?m)^(?!#SBATCH).*", "", script)
    assert "--cpus-per-task=3\n" in script


def test_words_of_one_node():
    command = TrainingJob(["--config-file", "x", "SEED", "1"], 8).command(
        node=0, nodes=1, first_host="a", job_id="12"
    )
    assert command[1:] == ["-m", "mask_rcnn_ext.tools", "train", "--num-gpus", "8",
                           "--config-file", "x", "SEED", "1"]  # fmt: skip


def test_words_of_the_second_node():
    job = TrainingJob(["--config-file", "x"], 0)
    first, second = (job.command(node=n, nodes=2, first_host="a", job_id="12345_6") for n in (0, 1))
    assert second[4:-2] == ["--num-machines", "2", "--machine-rank", "1",
                            "--dist-url", "tcp://a:23456"]  # fmt: skip
    assert first[-4:] == [*second[-4:]]


def test_the_parser_of_a_training_understands_a_nodes_words():
    from mask_rcnn_ext.engine.arguments import argument_parser

    words = TrainingJob([*CONFIG, "SEED", "1"], 4).command(
        node=1, nodes=2, first_host="a", job_id="7"
    )[4:]
    args = argument_parser().parse_args(words)
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (4, 2, 1)
    assert args.opts == ["SEED", "1"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--", "SEED", "1"), "no --config-file"),
        ((), "no --config-file"),
        (("--", "--config-file", "none.yaml"), "none.yaml does not exist"),
        (("--", *CONFIG, "SOLVER.BASE_LRR", "1"), "nearest: SOLVER.BASE_LR"),
        (("--", "--num-machines", "2", *CONFIG), "leave --num-machines out"),
        (("--", "--dist-url=tcp://a:1", *CONFIG), "leave --dist-url out"),
        (("--gpus-per-node", "4", "--", "--num-gpus", "2", *CONFIG), "--gpus-per-node 4, but"),
        (("--nodes", "0", "--", *CONFIG), "--nodes 0"),
        (("--hours", "-1", "--", *CONFIG), "--hours -1"),
        (("--slurm", "=x", "--", *CONFIG), "KEY=VALUE"),
    ],
)
def test_mistakes_are_told_before_the_queue(cluster, words, text):
    with pytest.raises(UsageError, match=text):
        call("--folder", str(cluster / "logs"), *words)
    assert not (cluster / "batch.sh").exists()


def test_without_a_cluster_the_other_launcher_is_named(submitit, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="--launcher local"):
        call("--folder", str(tmp_path), "--", *CONFIG)


def test_without_submitit_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "submitit":
            raise ModuleNotFoundError("No module named 'submitit'", name="submitit")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"mask_rcnn_ext\[slurm\]"):
        call("--", *CONFIG)


@pytest.mark.parametrize(
    ("code", "again"), [("0", True), ("75", True), ("1", False), ("2", False), ("137", False)]
)
def test_what_is_requeued(submitit, code, again):
    """The training saves and leaves with 75; one that fails must not run for ever."""
    job = TrainingJob(["x"], 3)
    script = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGUSR1, lambda *a: sys.exit({code}))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        job._process = process
        delayed = job.checkpoint()
    assert (delayed is not None) is again
    if again:
        assert (delayed.function.words, delayed.function.processes) == (["x"], 3)
        assert delayed.function._process is None


def test_a_job_without_a_training_yet_is_requeued(submitit):
    assert TrainingJob(["x"], 3).checkpoint() is not None


def test_the_exit_code_can_be_asked_for_twice():
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    assert submit._wait(process) == 7
    assert submit._wait(process) == 7  # a handler that waits inside of another wait
    assert process.wait() == 7
    assert submit._wait(process) == 7


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _until(what, seconds: float = 180):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_a_preempted_job_goes_on(submitit, scenes, tmp_path, monkeypatch, capsys):
    """The whole way on this machine: submitted, preempted, requeued, finished."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    settings = {
        "MODEL.DEVICE": "cpu",
        "SOLVER.IMS_PER_BATCH": "2",
        "SOLVER.MAX_ITER": "60",
        "SOLVER.BASE_LR": "0.001",
        "SOLVER.CHECKPOINT_PERIOD": "1000",
        "INPUT.MIN_SIZE_TRAIN": "(64,)",
        "INPUT.MIN_SIZE_TEST": "64",
        "DATALOADER.NUM_WORKERS": "1",
        "TEST.SAMPLE_PICTURES": "0",
        "SEED": "7",
        "OUTPUT_DIR": str(out),
    }
    words = [word for pair in settings.items() for word in pair]
    call("--launcher", "local", "--gpus-per-node", "0", "--folder", str(tmp_path / "logs"),
         "--", *CONFIG, *words)  # fmt: skip
    controller = int(re.search(r"job (\d+) is", capsys.readouterr().out)[1])
    try:
        metrics = out / "metrics.json"
        _until(lambda: metrics.exists() and metrics.read_text())
        os.kill(_children(controller)[0], signal.SIGUSR1)
        log = tmp_path / "logs" / f"{controller}_0_log.out"
        errors = tmp_path / "logs" / f"{controller}_0_log.err"
        _until(lambda: "Job completed successfully" in log.read_text() + errors.read_text())
    finally:
        os.kill(controller, signal.SIGINT)
    text = log.read_text() + errors.read_text()
    assert "Requeued job" in text
    assert "SIGUSR1" in text
    steps = [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps), "no step is made twice"
    assert json.loads((out / "run.json").read_text())["state"] == "finished"
    assert "segm/AP" in json.loads((out / "results.json").read_text())

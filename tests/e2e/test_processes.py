"""train_net.py as several processes: its own, torchrun's, and on two machines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner import Runner

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
# The first machine's address in the network of the two namespaces.
MASTER = "10.213.77.1"


@pytest.fixture
def runner(scenes_root, tmp_path, repo_root) -> Runner:
    return Runner(repo_root, scenes_root, tmp_path / "out")


def _start(runner: Runner, command: list[str], **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=runner.root,
        env=runner.environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[str], timeout: float = 200) -> tuple[int, str]:
    """Exit code and output; nothing of it outlives the test."""
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def _is_whole(out: Path, iterations: int) -> None:
    """Trained to the end and evaluated, by all processes together."""
    results = json.loads((out / "results.json").read_text())
    assert "segm/AP" in results
    assert json.loads((out / "run.json").read_text())["state"] == "finished"
    lines = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    # What the evaluation adds is written with the number of iterations.
    assert max(line["iteration"] for line in lines if "total_loss" in line) == iterations - 1
    inference = next(out.glob("inference/*/coco_instances_results.json"))
    images = {d["image_id"] for d in json.loads(inference.read_text())}
    assert len(images) == 4, "each process evaluates a part, all are in the results"


def _until(what, process: subprocess.Popen[str], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _steps(out: Path) -> int:
    """The last iteration in metrics.json, -1 before the first."""
    metrics = out / "metrics.json"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max((json.loads(line)["iteration"] for line in lines), default=-1)


def test_torchrun_trains_and_evaluates(runner):
    words = runner.command(TEST__SAMPLE_PICTURES="0")[1:]
    code, output = _end(_start(runner, [*TORCHRUN, "--nproc-per-node", "2", *words]))
    assert code == 0, output
    _is_whole(runner.out, 3)
    assert "World size: 2" in output


def _worker(agent: int, local_rank: int) -> int:
    """The process that torchrun has started with this local rank."""
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if f"LOCAL_RANK={local_rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(
            b"\0"
        ):
            return int(pid)
    raise AssertionError(f"torchrun {agent} has no worker {local_rank}")


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_run_ends_right(runner):
    """Through the verb; the elastic agent repeats the same words."""
    words = runner.command(
        "--resume", SOLVER__MAX_ITER="60", SOLVER__CHECKPOINT_PERIOD="5", TEST__SAMPLE_PICTURES="0"
    )[2:]
    elastic = [*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "1"]
    process = _start(runner, [*elastic, "-m", "mask_rcnn_ext.tools", "train", *words])
    try:
        _until(lambda: (runner.out / "last_checkpoint").exists(), process)
        os.kill(_worker(process.pid, local_rank=1), signal.SIGKILL)
    finally:
        code, output = _end(process)
    assert code == 0, output
    assert output.count("World size: 2") == 2, "rank 0 has begun twice"
    _is_whole(runner.out, 60)
    lines = (runner.out / "metrics.json").read_text().splitlines()
    steps = [json.loads(line)["iteration"] for line in lines]
    assert steps == sorted(set(steps)), "no step counts twice"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_the_launcher_stops_all_and_the_same_command_goes_on(runner, number):
    command = runner.command(
        "--num-gpus", "2", SOLVER__MAX_ITER="60", SOLVER__CHECKPOINT_PERIOD="1000",
        TEST__SAMPLE_PICTURES="0",
    )  # fmt: skip
    process = _start(runner, command)
    try:
        _until(lambda: _steps(runner.out) >= 0, process)
        process.send_signal(number)
    finally:
        code, output = _end(process)
    assert code == 75, output
    assert "Traceback" not in output
    assert "run the same command again" in output
    assert json.loads((runner.out / "run.json").read_text())["state"] == "stopped"
    code, output = _end(_start(runner, command))
    assert code == 0, output
    _is_whole(runner.out, 60)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def _network() -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable; their names."""
    names = [f"mre{os.getpid()}{side}" for side in "ab"]
    made: list[str] = []
    try:
        for name in names:
            _ip("netns", "add", name)
            made.append(name)
        _ip("link", "add", "cable", "netns", names[0], "type", "veth",
            "peer", "name", "cable", "netns", names[1])  # fmt: skip
        for number, name in enumerate(names, start=1):
            _ip("-n", name, "addr", "add", f"{MASTER[:-1]}{number}/24", "dev", "cable")
            for link in ("lo", "cable"):
                _ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], timeout=30)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("two machines need root and the program ip (iproute2)")
    with contextlib.ExitStack() as stack:
        try:
            names = stack.enter_context(_network())
        except OSError as error:
            pytest.skip(f"network namespaces may not be made here: {error}")
        yield names


def _on(machine: str, runner: Runner, command: list[str], **variables: str) -> subprocess.Popen:
    # There is no name server there, and torch asks for the names of addresses: a file has them.
    # `ip netns exec` gives the command mounts of its own.
    hosts = runner.out.parent / "hosts"
    names = [f"{MASTER[:-1]}{number} machine{number - 1}" for number in (1, 2)]
    hosts.write_text("\n".join(["127.0.0.1 localhost", *names]) + "\n")
    script = f'mount --bind {shlex.quote(str(hosts))} /etc/hosts && exec "$@"'
    inside = ["ip", "netns", "exec", machine, "sh", "-c", script, "sh"]
    return _start(runner, [*inside, *command], **variables)


def _all(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """One fails, the others would wait for it: their outputs are wanted then, too."""
    try:
        return [_end(process) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_two_machines_train_and_evaluate(runner, machines):
    processes = [
        _on(
            machine,
            runner,
            runner.command(
                "--num-gpus", "1", "--num-machines", "2", "--machine-rank", str(rank),
                "--dist-url", f"tcp://{MASTER}:29511", SOLVER__MAX_ITER="2",
                TEST__SAMPLE_PICTURES="0",
            ),
        )
        for rank, machine in enumerate(machines)
    ]  # fmt: skip
    for code, output in _all(processes):
        assert code == 0, output
    _is_whole(runner.out, 2)


@pytest.mark.slow
def test_two_machines_under_torchrun(runner, machines):
    processes = [
        _on(
            machine,
            runner,
            [
                *TORCHRUN, "--nnodes", "2", "--nproc-per-node", "2", "--node-rank", str(rank),
                "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{MASTER}:29512",
                "--rdzv-conf", f"is_host={rank == 0}", "--rdzv-id", "1",
                "--local-addr", f"{MASTER[:-1]}{rank + 1}",
                *runner.command(SOLVER__IMS_PER_BATCH="4", TEST__SAMPLE_PICTURES="0")[1:],
            ],
        )
        for rank, machine in enumerate(machines)
    ]  # fmt: skip
    for code, output in _all(processes):
        assert code == 0, output
    _is_whole(runner.out, 3)


def test_a_machine_that_was_not_started_is_named(runner, machines):
    command = runner.command(
        "--num-gpus", "1", "--num-machines", "2", "--dist-url", f"tcp://{MASTER}:29513"
    )
    process = _on(machines[0], runner, command, MASK_RCNN_EXT_PREFLIGHT_SECONDS="4")
    code, output = _end(process)
    assert code == 1, output
    assert "Traceback" not in output
    assert "waiting for rank 1 of 2" in output
    message = re.findall(r"(?m)^train_net.py: (.*)$", output)
    assert len(message) == 1
    assert message[0].startswith("rank 1 (machine 1, local rank 0) has not reported within 4 s")
    assert "--machine-rank 1" in message[0]
    assert not (runner.out / "run.json").exists(), "nothing has begun"


@pytest.mark.slow
def test_a_rank_that_is_there_twice_is_named(runner, machines):
    command = runner.command(
        "--num-gpus", "1", "--num-machines", "3", "--dist-url", f"tcp://{MASTER}:29514"
    )
    twice = [*command[:4], "--machine-rank", "2", *command[4:]]
    places = [(machines[0], command), (machines[1], twice), (machines[1], twice)]
    ends = _all([_on(machine, runner, words) for machine, words in places])
    assert [code for code, _ in ends] == [1, 1, 1]
    told = [re.findall(r"(?m)^train_net.py: (.*)$", output) for _, output in ends]
    assert all(len(lines) == 1 for lines in told), told
    assert "rank 2 is there 2 times" in told[0][0]
    assert "Two machines have --machine-rank 2" in told[0][0]
    assert all("rank 2 is there 2 times; rank 0 (" in lines[0] for lines in told[1:])

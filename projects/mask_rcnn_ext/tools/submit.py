"""Hand a training to SLURM: one command instead of a batch script, and it requeues itself.

The words after -- are those of train_net.py. On each node one process of the job starts the
training on that node's GPUs; the number of GPUs, the machines' ranks and their address are filled
in. Before the time is over, and when the job is preempted, the training is told (SIGUSR1): it
finishes its step, saves, and the job goes back into the queue to go on from there.

  mask-rcnn-ext submit --partition gpu --nodes 2 --gpus-per-node 8 --hours 24 -- \\
      --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml \\
      OUTPUT_DIR /shared/runs/r50
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.processes import port_for
from ..errors import Interrupted, UsageError

HELP = "hand a training to SLURM through submitit; it requeues itself"
SUBMITIT_MISSING = (
    "submit needs the package submitit: python -m pip install 'mask_rcnn_ext[slurm]' "
    "(or: python -m pip install submitit)"
)
# submitit's own choice, SIGUSR2, means nothing to the training.
_PREEMPT_SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"
_PREFLIGHT = "MASK_RCNN_EXT_PREFLIGHT_SECONDS"
_PREFLIGHT_SECONDS = "300"  # nodes of a job start together, but read Python from a shared disk
_SIGNAL_SECONDS = 180  # from SIGUSR1 to the end of the time: a step and a checkpoint
_REQUEUE_SECONDS = 300
_FILLED_IN = ("--num-machines", "--machine-rank", "--dist-url")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--launcher",
        choices=("slurm", "local"),
        default="slurm",
        help="local: on this machine, to try the same way without a cluster (default: slurm)",
    )
    parser.add_argument("--partition", help="of the cluster (default: the cluster's)")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    parser.add_argument(
        "--gpus-per-node",
        type=int,
        default=1,
        metavar="G",
        help="GPUs, and processes, on each; 0: on CPUs, with the --num-gpus of the words "
        "(default: 1)",
    )
    parser.add_argument(
        "--cpus-per-task",
        type=int,
        metavar="C",
        help="cores on each node (default: 8 for each GPU, 8 without)",
    )
    parser.add_argument(
        "--hours", type=float, default=24, metavar="H", help="before it requeues (default: 24)"
    )
    parser.add_argument(
        "--requeues",
        type=int,
        default=20,
        metavar="N",
        help="how often the time may be over; preemptions do not count (default: 20)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("output/submit"),
        help="for the jobs' logs, on a disk that all nodes see (default: %(default)s)",
    )
    parser.add_argument("--name", default="mask_rcnn_ext", help="of the job (default: %(default)s)")
    parser.add_argument("--comment", help="some clusters ask for one")
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other option of sbatch, such as account=vision or constraint=a100; may be "
        "repeated; exclusive, without =, is a switch",
    )
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="-- WORDS",
        help="of train_net.py, after --; see `mask-rcnn-ext train --help`",
    )


class TrainingJob:
    """What submitit runs on each node: the training as a process of its own.

    words: of train_net.py
    processes: on each node; 0: as the words say
    """

    def __init__(self, words: Sequence[str], processes: int):
        self.words = list(words)
        self.processes = processes
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *, node: int, nodes: int, first_host: str, job_id: str) -> list[str]:
        """The words for one node.

        Args:
            node: 0 ... nodes - 1
            first_host: name of node 0
            job_id: gives the port where the nodes meet
        """
        places: list[str] = []
        if self.processes:
            places += ["--num-gpus", str(self.processes)]
        if nodes > 1:
            port = port_for(int("".join(re.findall(r"\d", job_id)) or 0))
            places += ["--num-machines", str(nodes), "--machine-rank", str(node)]
            places += ["--dist-url", f"tcp://{first_host}:{port}"]
        return [sys.executable, "-m", "mask_rcnn_ext.tools", "train", *places, *self.words]

    def __call__(self) -> int:
        import submitit

        here = submitit.JobEnvironment()
        command = self.command(
            node=here.node, nodes=here.num_nodes, first_host=here.hostnames[0], job_id=here.job_id
        )
        print(shlex.join(command), flush=True)
        environment = {_PREFLIGHT: _PREFLIGHT_SECONDS} | os.environ
        self._process = subprocess.Popen(command, env=environment)
        try:
            code = _wait(self._process)
        except BaseException:  # the job is cancelled; or checkpoint() has seen to the training
            self._process.terminate()
            raise
        if code == Interrupted.exit_code:
            # Told to stop by the scheduler, which signals all processes of a job. The first node
            # requeues the job, or the scheduler does; both end this process.
            time.sleep(_REQUEUE_SECONDS)
        if code:
            raise RuntimeError(f"the training ended with exit code {code}; its output says why")
        return 0

    def checkpoint(self) -> Any:
        """submitit calls it, in a signal handler, before the time is over or on preemption.

        Returns:
            what to put into the queue again; None when the training failed
        """
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.send_signal(signal.SIGUSR1)
            code = _wait(self._process)
            if code not in (0, Interrupted.exit_code, -signal.SIGUSR1):
                print(f"the training ended with exit code {code}: not requeued", flush=True)
                return None
        return DelayedSubmission(TrainingJob(self.words, self.processes))


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, negative for a signal.

    Popen.wait() holds a lock meanwhile, on which a signal handler that waits too would hang.
    """
    if process.returncode is not None:
        return process.returncode
    end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert end is not None, "only WNOHANG gives None"
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


def run(args: argparse.Namespace) -> int:
    require_submitit()
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    _check(args, words)
    executor = executor_for(args)
    _tell(submit_to(executor, TrainingJob(words, args.gpus_per_node)), args.launcher)
    return 0


def require_submitit() -> Any:
    """
    Returns:
        the module
    Raises:
        UsageError: it is not installed
    """
    os.environ.setdefault(_PREEMPT_SIGNAL, "USR1")  # read when submitit is imported; jobs inherit
    try:
        import submitit
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise UsageError(SUBMITIT_MISSING) from error
    return submitit


def executor_for(args: argparse.Namespace) -> Any:
    """submitit's, for the options of this verb; makes the folder of the logs.

    Raises:
        UsageError: there is no cluster, or it refuses an option
    """
    submitit = require_submitit()
    parameters = job_parameters(args)
    args.folder.mkdir(parents=True, exist_ok=True)
    limit: dict[str, Any] = {f"{args.launcher}_max_num_timeout": args.requeues}
    try:
        executor = submitit.AutoExecutor(args.folder.resolve(), cluster=args.launcher, **limit)
        executor.update_parameters(**parameters)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{error}. Without a cluster: --launcher local, with one node") from error
    return executor


def submit_to(executor: Any, job: TrainingJob) -> Any:
    """
    Returns:
        submitit's job
    Raises:
        UsageError: SLURM refused it
    """
    try:
        return executor.submit(job)
    except require_submitit().core.utils.FailedJobError as error:
        raise UsageError(f"SLURM refused the job: {error}") from error


def job_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """The verb's options as submitit's parameters."""
    cpus = args.cpus_per_task or 8 * max(1, args.gpus_per_node)
    parameters: dict[str, Any] = {
        "name": args.name,
        "nodes": args.nodes,
        "tasks_per_node": 1,
        "gpus_per_node": args.gpus_per_node,
        "cpus_per_task": cpus,
        "timeout_min": max(1, round(args.hours * 60)),
    }
    if args.launcher == "local":
        return parameters
    others: dict[str, Any] = {"requeue": True}
    for pair in args.slurm:
        key, equals, value = pair.partition("=")
        if not key:
            raise UsageError(f"--slurm {pair}: KEY=VALUE was expected, as in account=vision")
        others[key.lstrip("-")] = value if equals else True
    parameters |= {
        "slurm_partition": args.partition,
        "slurm_comment": args.comment,
        "slurm_signal_delay_s": _SIGNAL_SECONDS,
        "slurm_additional_parameters": others,
    }
    if args.gpus_per_node == 0:
        del parameters["gpus_per_node"]  # some clusters refuse a 0
    return parameters


def _check(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Find mistakes now, not after a night in the queue."""
    from ..config import load_config
    from ..engine.arguments import argument_parser

    if min(args.nodes, args.hours) <= 0 or min(args.gpus_per_node, args.requeues) < 0:
        raise UsageError(
            f"--nodes {args.nodes} --gpus-per-node {args.gpus_per_node} --hours {args.hours:g} "
            f"--requeues {args.requeues}: numbers above 0 were expected (GPUs, requeues: 0 or more)"
        )
    parser = argument_parser()
    parser.prog = "mask-rcnn-ext submit ... --"
    training = parser.parse_args(list(words))
    if not training.config_file:
        raise UsageError(
            "no --config-file among the words of train_net.py; they follow --, as in: "
            "mask-rcnn-ext submit --nodes 1 -- --config-file FILE"
        )
    for option in _FILLED_IN:
        if any(word == option or word.startswith(f"{option}=") for word in words):
            raise UsageError(f"leave {option} out: it is filled in on each node")
    if args.gpus_per_node and training.num_gpus not in (1, args.gpus_per_node):
        raise UsageError(
            f"--gpus-per-node {args.gpus_per_node}, but --num-gpus {training.num_gpus} among the "
            "words; leave the latter out"
        )
    load_config(training.config_file, training.opts)


def _tell(job: Any, launcher: str) -> None:
    log = job.paths.stdout
    cancel = f"scancel {job.job_id}" if launcher == "slurm" else f"kill -INT {job.job_id}"
    print(
        f"job {job.job_id} is submitted\n"
        f"  log      {log}\n"
        f"  errors   {job.paths.stderr}\n"
        f"  follow   tail -F {shlex.quote(str(log))} {shlex.quote(str(job.paths.stderr))}"
    )
    if launcher == "slurm":
        print(f"  state    squeue -j {job.job_id}")
    print(f"  cancel   {cancel}")

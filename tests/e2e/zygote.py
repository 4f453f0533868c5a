"""A process that has imported everything and forks programs of ours: a start without its seconds.

    python zygote.py       then, on stdin, one JSON object a line; see `Zygote.start`

For each it prints the child's pid, and its exit code when it ends. Nothing but imports happens
before a fork: a child of a process that has computed with threads may hang.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any


class Zygote:
    """The test's side of it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answers: Queue[str] = Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._running = False
        assert self._answer(120) == "ready"

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Path,
        stderr: Path | None = None,
    ) -> int:
        """Pid of a run, which leads a process group of its own.

        Args:
            command: [python, script, words...], as for `subprocess`
            stdout, stderr: files to write, from their ends on; None: the same file for both
        """
        if self._running:  # a failed test has left it
            self.wait()
        for path in (stdout, stderr or stdout):
            path.touch()
        asked = {"argv": list(command[1:]), "cwd": str(cwd), "env": dict(env)}
        asked |= {"stdout": str(stdout), "stderr": str(stderr or stdout)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        self._running = True
        pid = int(self._answer(60))
        assert pid > 1, pid  # 0 would be the test's own process group
        return pid

    def wait(self, timeout: float = 240) -> int:
        """Exit code of the run that was started last; negative for a signal."""
        code = int(self._answer(timeout))
        self._running = False
        return code

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line.strip())

    def _answer(self, timeout: float) -> str:
        try:
            return self._answers.get(timeout=timeout)
        except Empty:
            raise TimeoutError(f"no answer within {timeout:g} seconds") from None


def _serve() -> None:
    import mask_rcnn_ext.engine.launch
    import mask_rcnn_ext.engine.run  # noqa: F401  (all that a run imports)

    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            os.setsid()
            print(os.getpid(), file=answers, flush=True)
            _run(asked)
        status = os.waitpid(pid, 0)[1]
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _run(asked: dict[str, Any]) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    if "OMP_NUM_THREADS" in asked["env"]:  # read when torch was imported
        import torch

        torch.set_num_threads(int(asked["env"]["OMP_NUM_THREADS"]))
    sys.argv = asked["argv"]
    code: Any = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve()

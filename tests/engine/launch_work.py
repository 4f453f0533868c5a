"""What the children of test_launch_children.py do: module-level, so that they can be pickled."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from mask_rcnn_ext.engine.processes_children import Follower
from mask_rcnn_ext.errors import DataError, Interrupted, UsageError

LONG = 120


class Picky(DataError):
    """Cannot be pickled: its constructor wants more than its message."""

    def __init__(self, name: str, line: int):
        super().__init__(f"{name}:{line} is wrong")


def code(codes: tuple[int, ...], index: int) -> int:
    return codes[index]


def leave(codes: tuple[int, ...], index: int) -> None:
    os._exit(codes[index])


def variable(folder: Path, name: str, index: int) -> None:
    (folder / str(index)).write_text(os.environ.get(name, "unset"))


def data_error(folder: Path, index: int) -> None:
    if index == 1:
        raise DataError("image 7 is broken")
    (folder / "waits").touch()
    time.sleep(LONG)
    (folder / "went on").touch()


def picky(index: int) -> None:
    raise Picky("a.json", 7)


def bug(index: int) -> None:
    if index == 0:
        raise KeyError("surprise")
    time.sleep(LONG)


def many_words(index: int) -> None:
    raise DataError("x" * 300_000)


def explained_elsewhere(index: int) -> None:
    """The one that only points to another comes first."""
    if index == 0:
        raise Follower("rank 1 says why")
    time.sleep(0.3)
    raise UsageError("the reason")


def _wait_for(path: Path) -> None:
    """What another child writes just before it ends: on a busy machine it may start late."""
    while not path.exists():
        time.sleep(0.01)


def stopped_then_lost(folder: Path, index: int) -> None:
    """One stops on request, the other loses its peer by that."""
    if index == 1:
        (folder / "ends").touch()
        raise Interrupted("saved")
    _wait_for(folder / "ends")
    time.sleep(0.3)
    raise RuntimeError("Connection closed by peer")


def stopped_but_not_saved(index: int) -> None:
    if index == 1:
        raise Interrupted("saved")
    time.sleep(0.3)
    raise DataError("disk full")


def killed(folder: Path, number: int, index: int) -> None:
    """One is killed; the other notices that at once, as the end of a connection."""
    if index == 1:
        (folder / "ends").touch()
        os.kill(os.getpid(), number)
    _wait_for(folder / "ends")
    raise RuntimeError("Connection closed by peer")


def grandchild(folder: Path, index: int) -> None:
    """Starts a process of its own, then fails."""
    pid = os.fork()
    if not pid:
        time.sleep(LONG)
        os._exit(0)
    (folder / "pid").write_text(str(pid))
    raise DataError("after a fork")


def counts_signals(folder: Path, index: int) -> int:
    """Saves for a while after the first signal; tells how many came."""
    seen: list[str] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda n, frame: seen.append(signal.Signals(n).name))
    (folder / f"ready{index}").touch()
    while not seen:
        time.sleep(0.01)
    time.sleep(0.5)
    (folder / f"seen{index}").write_text(" ".join(seen))
    raise Interrupted("stopped after iteration 3")


def deaf(folder: Path, index: int) -> None:
    """Notes signals, and goes on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda n, frame: (folder / f"heard{index}").touch())
    (folder / f"pid{index}").write_text(str(os.getpid()))
    (folder / f"ready{index}").touch()
    while True:
        time.sleep(0.01)


def unprepared(folder: Path, index: int) -> None:
    """As before the training listens to signals."""
    (folder / f"ready{index}").touch()
    time.sleep(LONG)


if __name__ == "__main__":
    # A launcher that the test kills: its children are deaf.
    import functools

    from mask_rcnn_ext.engine.processes_children import run_children

    run_children(functools.partial(deaf, Path(sys.argv[1])), [0, 1], start_method="fork")

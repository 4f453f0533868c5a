"""Before the first collective: who is there, do they fit together, does the library work.

Without it, a machine that was not started, a firewall or two machines of the same rank end in half
an hour of silence and then an error of the collective library. All ranks report to a store (a
key-value server on machine 0), and every one of them ends with the verdict.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UsageError, UserError
from .processes import Place
from .processes_children import Follower

SECONDS = "MASK_RCNN_EXT_PREFLIGHT_SECONDS"
DEFAULT_SECONDS = 10.0
# How much longer the others wait for rank 0's verdict before they judge themselves.
BENEFIT_SECONDS = 2.0
_POLL_SECONDS = 0.05
_NOTICE_SECONDS = 3.0
_NAMED_AT_MOST = 8


@dataclass(frozen=True)
class Report:
    """What a rank says of itself.

    device: "cpu", or the GPU's name
    gpu: the GPU's own number in the world; "" without one
    commit, config: a hash; "" where unknown
    trouble: why this rank cannot take part, "" when it can
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    machine: int
    host: str
    pid: int
    device: str
    gpu: str
    torch: str
    package: str
    commit: str
    config: str
    trouble: str = ""

    @property
    def who(self) -> str:
        return f"rank {self.rank} ({self.host}, pid {self.pid})"


def preflight_seconds() -> float:
    """How long a rank may be missing: MASK_RCNN_EXT_PREFLIGHT_SECONDS, 10 by default."""
    return seconds_of(SECONDS, DEFAULT_SECONDS)


def seconds_of(variable: str, default: float) -> float:
    """A positive number of seconds from the environment."""
    text = os.environ.get(variable, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e7:
        raise UsageError(f"the environment variable {variable} is {text!r}; seconds were expected")
    return seconds


def wait_for_store(place: Place, limit: float) -> None:
    """Until somebody listens where the store should be.

    Raises:
        UserError: nobody did within `limit` seconds
    """
    deadline = time.monotonic() + limit
    while True:
        left = max(0.1, deadline - time.monotonic())
        try:
            with socket.create_connection((place.address, place.port), timeout=min(left, 2.0)):
                return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise _unreachable(place, limit, error) from None
        time.sleep(0.1)


def _unreachable(place: Place, limit: float, error: OSError) -> UserError:
    if isinstance(error, socket.gaierror):
        why = f"no machine is known here by the name {place.address!r}"
    elif isinstance(error, TimeoutError):
        why = "no answer: a wrong address, or a firewall"
    elif isinstance(error, ConnectionRefusedError):
        why = "nothing listens there: rank 0 does not run, or the port is another one"
    else:
        why = error.strerror or str(error)
    advice = "check that the command runs on machine 0 too"
    if place.starter == "train_net.py":
        advice += ", with --machine-rank 0 and the same --dist-url"
        if place.address in ("localhost", "127.0.0.1", "::1") and place.machine > 0:
            advice = (
                f"{place.address} is this machine itself: give all machines "
                "--dist-url tcp://ADDRESS_OF_MACHINE_0:PORT"
            )
    return UserError(
        f"rank 0 has not reported within {limit:g} s: machine {place.machine} cannot reach "
        f"{place.url} ({why}); {advice}. For machines that start further apart set {SECONDS}"
    )


def roll_call(
    store: Any,
    mine: Report,
    place: Place,
    *,
    limit: float,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Wait for all ranks and compare what they report.

    The clock starts again with each rank that arrives: processes that import from a slow disk
    trickle in, a machine that was not started stays away.

    Args:
        store: a torch.distributed store that all ranks share, empty at first
        limit: seconds without a new rank after which the absent ones are missing
        say: where rank 0 tells whom it waits for
    Raises:
        UserError: what is wrong, with the ranks named; in full on rank 0, in one line elsewhere
    """
    try:
        verdict, is_judge = _verdict(store, mine, place, limit, say)
    except (RuntimeError, ConnectionError) as error:  # torch's DistError is the first
        first_line = str(error).strip().partition("\n")[0]
        raise Follower(
            f"rank {mine.rank} does not start: the store at {place.url} is gone ({first_line}); "
            "the output of machine 0 has the reason"
        ) from None
    if not verdict["brief"]:
        return
    if is_judge:
        raise UserError(verdict["full"])
    raise Follower(
        f"rank {mine.rank} does not start: {verdict['brief']}; {verdict['judge']} says more"
    )


def _verdict(
    store: Any, mine: Report, place: Place, limit: float, say: Callable[[str], None]
) -> tuple[dict[str, str], bool]:
    number = store.add("arrivals", 1)
    store.set(f"arrival/{number}", json.dumps(asdict(mine)))
    patience = limit if mine.rank == 0 else limit + BENEFIT_SECONDS
    present: list[Report] = []
    count, last = 0, time.monotonic()
    notice = last + _NOTICE_SECONDS
    while not store.check(["verdict"]):
        arrived = store.add("arrivals", 0)
        now = time.monotonic()
        if arrived > count:
            count, last = arrived, now
        over = now - last >= patience
        if mine.rank == 0 or over:
            for new in range(len(present) + 1, count + 1):
                present.append(Report(**json.loads(store.get(f"arrival/{new}"))))
            brief, full = find_fault(present)
            missing = _missing(present)
            if not brief and over:
                brief, full = _absence(missing, present, place, limit)
            if brief or not missing:
                found = {"brief": brief, "full": full, "judge": mine.who, "number": str(number)}
                store.compare_set("verdict", "", json.dumps(found))
                continue
            if now >= notice:
                names = _join([str(rank) for rank in missing])
                ranks = "rank" if len(missing) == 1 else "ranks"
                say(f"waiting for {ranks} {names} of {mine.world_size}")
                notice = now + _NOTICE_SECONDS
        time.sleep(_POLL_SECONDS)
    verdict: dict[str, str] = json.loads(store.get("verdict"))
    is_judge = verdict["number"] == str(number)
    store.add("read", 1)
    if verdict["brief"] and place.hosts_store:
        # The store ends with this process: let the others read first.
        deadline = time.monotonic() + BENEFIT_SECONDS
        while store.add("read", 0) < store.add("arrivals", 0) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    return verdict, is_judge


def find_fault(present: Sequence[Report]) -> tuple[str, str]:
    """
    Args:
        present: at least one report
    Returns:
        what is wrong with those that are there: in few words, and in full; "", "" if nothing is
    """
    for check in (_of_one, _of_numbers, _of_duplicates, _of_layout, _of_gpus, _of_versions):
        brief, full = check(present)
        if brief:
            return brief, full
    return "", ""


def _of_one(present: Sequence[Report]) -> tuple[str, str]:
    troubled = [r for r in present if r.trouble]
    if not troubled:
        return "", ""
    brief = f"{troubled[0].who}: {troubled[0].trouble}"
    return brief, "; ".join(f"{r.who}: {r.trouble}" for r in troubled[:_NAMED_AT_MOST])


def _of_numbers(present: Sequence[Report]) -> tuple[str, str]:
    kinds = _kinds(present, lambda r: f"{r.local_size} of {r.world_size}")
    if len(kinds) < 2:
        return "", ""
    full = "the machines were started with different numbers of processes: "
    full += "; ".join(f"{kind} on {_hosts(reports)}" for kind, reports in kinds.items())
    advice = ". Give each the same --num-gpus and --num-machines (torchrun: --nproc-per-node)"
    return "the numbers of processes differ", full + advice


def _of_duplicates(present: Sequence[Report]) -> tuple[str, str]:
    counts = Counter(r.rank for r in present)
    twice = sorted(rank for rank, count in counts.items() if count > 1)
    if not twice:
        return "", ""
    claims = [r for r in present if r.rank == twice[0]]
    brief = f"rank {twice[0]} is there {len(claims)} times"
    full = f"{brief}: {' and '.join(r.who for r in claims)}. "
    return brief, full + (
        f"Two machines have --machine-rank {claims[0].machine}; each machine needs its own, 0 to "
        f"{claims[0].world_size // claims[0].local_size - 1}"
    )


def _of_layout(present: Sequence[Report]) -> tuple[str, str]:
    for r in present:
        if r.rank != r.machine * r.local_size + r.local_rank:
            brief = f"{r.who} is process {r.local_rank} of machine {r.machine}"
            return brief, (
                f"{brief}, with {r.local_size} a machine. Ranks must go machine by machine "
                "(srun: --distribution=block)"
            )
    return "", ""


def _of_gpus(present: Sequence[Report]) -> tuple[str, str]:
    for reports in _kinds([r for r in present if r.gpu], lambda r: f"{r.host} {r.gpu}").values():
        if len(reports) > 1:
            brief = f"{' and '.join(r.who for r in reports)} use the same GPU"
            return brief, f"{brief} ({reports[0].device}); each process needs one of its own"
    return "", ""


def _of_versions(present: Sequence[Report]) -> tuple[str, str]:
    facts: dict[str, Callable[[Report], str]] = {
        "versions of torch": lambda r: r.torch,
        "versions of mask_rcnn_ext": lambda r: r.package,
        "commits of mask_rcnn_ext": lambda r: r.commit,
        "configs (a hash of all keys but OUTPUT_DIR)": lambda r: r.config,
        "kinds of device": lambda r: "a GPU" if r.gpu else r.device,
    }
    for what, value in facts.items():
        kinds = {kind: who for kind, who in _kinds(present, value).items() if kind}
        if len(kinds) > 1:
            full = f"the ranks run different {what}: " + "; ".join(
                f"{kind} on {_ranks(reports)} ({_hosts(reports)})"
                for kind, reports in kinds.items()
            )
            return f"the ranks run different {what}", full + ". Make them the same"
    return "", ""


def _missing(present: Sequence[Report]) -> list[int]:
    there = {r.rank for r in present}
    return [rank for rank in range(present[0].world_size) if rank not in there]


def _absence(
    missing: Sequence[int], present: Sequence[Report], place: Place, limit: float
) -> tuple[str, str]:
    each = place.local_size
    names = _join([f"rank {r} (machine {r // each}, local rank {r % each})" for r in missing])
    verb = "has" if len(missing) == 1 else "have"
    brief = f"{names} {verb} not reported within {limit:g} s"
    machines = sorted({r // each for r in missing})
    advice = {
        "train_net.py": "with --machine-rank " + " and ".join(map(str, machines)),
        "torchrun": "under torchrun",
        "srun": "under srun",
    }[place.starter]
    where = "there" if place.machines > 1 else "still"
    here = _join([report.who for report in sorted(present, key=lambda report: report.rank)])
    return brief, (
        f"{brief}; present: {here}; check that the command runs {where} "
        f"({advice}), and that no firewall closes port {place.port} of {place.address}. "
        f"For processes that start further apart set {SECONDS}"
    )


def _kinds(present: Sequence[Report], value: Callable[[Report], str]) -> dict[str, list[Report]]:
    kinds: dict[str, list[Report]] = {}
    for report in sorted(present, key=lambda r: r.rank):
        kinds.setdefault(value(report), []).append(report)
    return kinds


def _ranks(reports: Sequence[Report]) -> str:
    return ("rank " if len(reports) == 1 else "ranks ") + _join([str(r.rank) for r in reports])


def _hosts(reports: Sequence[Report]) -> str:
    return _join(list(dict.fromkeys(f"{r.host} (machine {r.machine})" for r in reports)))


def _join(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")

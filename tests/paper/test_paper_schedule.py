"""The order of tasks, how many at a time, what a failure or a request to stop does to others."""

from __future__ import annotations

import pytest

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.paper.schedule import NO_TURN, End, Task, by_urgency, run_tasks

FINE = End("finished")


class Fake:
    """Runs for some looks, then ends."""

    def __init__(self, looks: int = 1, end: End | Exception = FINE):
        self.looks, self.end, self.stops = looks, end, []

    def look(self):
        self.looks -= 1
        if self.looks > 0:
            return None
        if isinstance(self.end, Exception):
            raise self.end
        return End("stopped") if self.stops else self.end

    def stop(self, at_once):
        self.stops.append(at_once)
        self.looks = 1


class World:
    """Starts fakes and writes down what happens."""

    def __init__(self, **fakes: Fake | Exception):
        self.fakes, self.events, self.slots, self.most, self.asked = fakes, [], {}, 0, 0

    def start(self, task, slot):
        assert slot not in self.slots.values(), "two in one slot"
        one = self.fakes.setdefault(task.name, Fake())
        if isinstance(one, Exception):
            raise one
        self.slots[task.name] = slot
        return one

    def started(self, task, running):
        self.events.append(f"+{task.name}")

    def ended(self, task, end):
        self.slots.pop(task.name, None)
        self.events.append(f"-{task.name}")

    def looked(self, running, waiting):
        self.most = max(self.most, len(running))
        self.now = sorted(running)

    def run(self, *tasks, jobs=1, requests=lambda: 0):
        return run_tasks(tasks, jobs, self.start, self, requests=requests, sleep=lambda s: None)


def test_what_most_waits_for_is_first():
    tasks = [
        Task("row", ("dump",), 9),
        Task("lonely", (), 5),
        Task("rpn", (), 1),
        Task("dump", ("rpn",), 1),
        Task("quick", (), 2),
        Task("times", (), 99, alone=True),
    ]
    order = [task.name for task in by_urgency(tasks)]
    assert order == ["rpn", "dump", "row", "lonely", "quick", "times"]


def test_needs_come_before_and_unknown_needs_are_there():
    world = World()
    ends = world.run(Task("b", ("a", "kept before")), Task("a"), jobs=2)
    assert world.events == ["+a", "-a", "+b", "-b"]
    assert ends == {"a": FINE, "b": FINE}


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_so_many_at_once(jobs):
    world = World(**{name: Fake(3) for name in "abcde"})
    ends = world.run(*(Task(name) for name in "abcde"), jobs=jobs)
    assert (world.most, len(ends)) == (jobs, 5)


def test_a_free_slot_is_used_at_once():
    world = World(a=Fake(9), b=Fake(2), c=Fake(2))
    world.run(Task("a"), Task("b"), Task("c"), jobs=2)
    assert world.events == ["+a", "+b", "-b", "+c", "-c", "-a"]


def test_one_that_takes_times_is_alone():
    world = World(long=Fake(4), times=Fake(3))
    seen = []
    world.looked = lambda running, waiting: seen.append(sorted(running))
    world.run(Task("times", alone=True), Task("long"), Task("more", ("times",)), jobs=3)
    assert all(now in ([], ["times"]) for now in seen if "times" in now)
    assert world.events == ["+long", "-long", "+times", "-times", "+more", "-more"]


def test_a_failure_stops_only_what_needs_it():
    world = World(rpn=Fake(end=End("failed", "no memory")))
    ends = world.run(Task("rpn"), Task("dump", ("rpn",)), Task("row", ("dump",)), Task("other"))
    assert ends["other"] == FINE
    assert ends["rpn"] == End("failed", "no memory")
    assert ends["dump"] == ends["row"] == End("not run", "needs rpn")
    assert "+row" not in world.events


def test_errors_of_a_start_and_of_a_look_are_failures():
    world = World(a=UserError("disk full"), b=Fake(end=UserError("gone")))
    ends = world.run(Task("a"), Task("b"), Task("c"))
    assert ends == {"a": End("failed", "disk full"), "b": End("failed", "gone"), "c": FINE}


def test_a_request_to_stop_reaches_all_that_run_and_starts_nothing_more():
    world = World(a=Fake(99), b=Fake(99))
    looks = iter([0, 0, 1] + [1] * 9)
    ends = world.run(Task("a"), Task("b"), Task("c"), jobs=2, requests=lambda: next(looks))
    assert (world.fakes["a"].stops, world.fakes["b"].stops) == ([False], [False])
    assert ends == {"a": End("stopped"), "b": End("stopped"), "c": End("not run", NO_TURN)}


def test_a_second_request_ends_it_at_once():
    class Deaf(Fake):
        def stop(self, at_once):
            self.stops.append(at_once)
            self.looks = 1 if at_once else self.looks

    world = World(a=Deaf(99))
    looks = iter([0, 1, 1, 2] + [2] * 9)
    assert world.run(Task("a"), requests=lambda: next(looks)) == {"a": End("stopped")}
    assert world.fakes["a"].stops == [False, True]


def test_after_a_request_all_that_waits_had_no_turn_however_fast_the_one_before_it_ended():
    world = World(a=Fake(99))
    looks = iter([0, 1] + [1] * 9)
    tasks = Task("a"), Task("b", ("a",)), Task("c", ("b",))
    ends = world.run(*tasks, requests=lambda: next(looks))
    no_turn = End("not run", NO_TURN)
    assert ends == {"a": End("stopped"), "b": no_turn, "c": no_turn}


def test_what_needs_a_stopped_one_is_not_run_though_nobody_asked_us():
    """Somebody else told the stage to stop: it will go on when the command is given again."""
    world = World(a=Fake(end=End("stopped")))
    ends = world.run(Task("a"), Task("b", ("a",)), Task("c"))
    assert ends == {"a": End("stopped"), "b": End("not run", "needs a"), "c": FINE}


def test_nothing_to_run():
    assert World().run() == {}

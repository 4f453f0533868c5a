"""Try things in a process of their own: a library that crashes takes only that one with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any, NamedTuple

_SECONDS = 180
_MARK = "mask-rcnn-ext-doctor "


class Probe(NamedTuple):
    """What a script said with `say(key, value)`, and how it ended ("" for well)."""

    said: dict[str, Any]
    error: str


def probe(script: str) -> Probe:
    """Run Python code in a new interpreter of this environment.

    Args:
        script: may call `say(key, value)` with JSON values and `attempt(key, function)`, which
            says what the function returns, or "error: ..." for what it raises
    """
    # -P: a file named torch.py in the working folder must not count.
    command = [sys.executable, "-P", "-W", "ignore", "-c", _PRELUDE + script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return Probe({}, f"it did not end within {_SECONDS} s")
    said: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            said.update(json.loads(line[len(_MARK) :]))
    return Probe(said, _end_of(done))


def failed(value: Any) -> str:
    """The message of what `attempt` could not do; "" if it could."""
    text = str(value)
    return text.removeprefix("error: ") if text.startswith("error: ") else ""


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"it crashed ({signal.Signals(-done.returncode).name})"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with code {done.returncode}"


_PRELUDE = f"""
import json, sys
def say(key, value):
    sys.stdout.write({_MARK!r} + json.dumps({{key: value}}) + "\\n")
    sys.stdout.flush()
def attempt(key, function):
    try:
        say(key, function())
    except BaseException as error:
        text = (str(error).strip().splitlines() or [""])[0]
        say(key, f"error: {{type(error).__name__}}: {{text}}"[:500])
"""

"""Errors that are for the user: one short message, no traceback.

A message says what came, what was expected and what to do. Entry points (`train_net.py`, the
console command) print it and leave with `exit_code`; everything else that escapes is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that the user can mend: data, disk, weights. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str):
        # A data-loader worker hands its exception over as text, traceback included, and torch
        # builds a new one of the same type from that text: keep only what we wrote.
        marker = f"{type(self).__name__}: "
        if "Original Traceback" in message and marker in message:
            message = message.rpartition(marker)[2].strip()
        super().__init__(message)


class UsageError(UserError):
    """A wrong call: unknown key, missing file, options that exclude each other. Exit code 2."""

    exit_code = 2


class DataError(UserError):
    """Images or annotations that cannot be used; names the file and, where known, the id."""


class Interrupted(UserError):
    """The run was stopped on request; its state is saved, the same command goes on with it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


def exit_code_of(work: Callable[[], int | None], program: str) -> int:
    """Run `work` and turn errors that are for the user into one message on stderr.

    Args:
        work: the whole command; returns its exit code, None counts as 0
        program: name to print in front of the message
    Returns:
        0 for success, 1 for a finding or a failure, 2 for wrong usage, 75 for "stopped on request,
        the same command goes on"
    """
    try:
        return work() or 0
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: stopped by Ctrl-C", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; Python would complain while closing it.
        sys.stderr.close()
        return 1

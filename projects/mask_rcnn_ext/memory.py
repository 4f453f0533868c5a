"""Memory that the process has freed, handed back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_heap() -> bool:
    """Give freed memory back to the system, where the C library is glibc; whether it is.

    After much was freed at once (a parsed file), the C library keeps it for later, and processes
    forked from this one start with it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return True
    return False

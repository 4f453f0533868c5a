"""One zygote for all whole runs, started when the first of them wants it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import runner
from zygote import Zygote


@pytest.fixture(scope="session", autouse=True)
def zygote() -> Iterator[Zygote]:
    one = Zygote()
    runner.ZYGOTE = one
    yield one
    one.close()

"""A real browser for tests of pages: headless Chromium, where the machine has one."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_VOID = {"meta", "input", "img", "link", "br", "hr", "rect", "path", "circle"}


class Browser:
    """Opens files; a test that makes one is skipped where there is no Chromium."""

    def __init__(self, folder: Path):
        program = next((path for name in _NAMES if (path := shutil.which(name))), None)
        if program is None:
            pytest.skip(f"needs a browser: none of {', '.join(_NAMES)} is on PATH")
        self._program = program
        self._folder = folder

    def dom(self, page: Path, fragment: str = "") -> str:
        """The document after its script has run, as HTML."""
        return self._run(page, fragment, "--dump-dom").decode()

    def screenshot(
        self, page: Path, fragment: str = "", size: tuple[int, int] = (1000, 1000)
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a window of (width, height), light colours."""
        target = self._folder / "screenshot.png"
        target.unlink(missing_ok=True)
        window = f"--window-size={size[0]},{size[1]}"
        self._run(page, fragment, "--hide-scrollbars", window, f"--screenshot={target}")
        return cv2.cvtColor(cv2.imread(str(target)), cv2.COLOR_BGR2RGB)

    def _run(self, page: Path, fragment: str, *options: str) -> bytes:
        command = [
            self._program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={self._folder / 'profile'}", *options,
            page.resolve().as_uri() + (f"#{fragment}" if fragment else ""),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout


def without_scripts(page: Path) -> Path:
    """A copy of the page beside it whose own policy forbids every script."""
    text = page.read_text(encoding="utf-8")
    forbidden, times = re.subn(r"script-src 'sha256-[^']+'", "script-src 'none'", text)
    assert times == 1, "the page has no policy for its script"
    copy = page.with_name(f"noscript_{page.name}")
    copy.write_text(forbidden, encoding="utf-8")
    return copy


class Element(dict[str, str | None]):
    """An element's attributes; and its name, the text below it, and what it lies in."""

    def __init__(self, name: str, attributes: dict[str, str | None], parent: Element | None):
        super().__init__(attributes)
        self.name, self.parent, self.text = name, parent, ""

    @property
    def hidden(self) -> bool:
        return "hidden" in self or (self.parent is not None and self.parent.hidden)

    @property
    def classes(self) -> list[str]:
        return (self.get("class") or "").split()


def elements(html: str, name: str, class_name: str = "") -> list[Element]:
    """All elements of a name, and of a class if one is given, in their order."""
    parser = _Parser()
    parser.feed(html)
    found = [one for one in parser.found if one.name == name]
    return [one for one in found if not class_name or class_name in one.classes]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Element] = []
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self._open[-1] if self._open else None)
        self.found.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(Element(tag, dict(attrs), self._open[-1] if self._open else None))

    def handle_endtag(self, tag: str) -> None:
        names = [one.name for one in self._open]
        if tag in names:
            del self._open[len(names) - 1 - names[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

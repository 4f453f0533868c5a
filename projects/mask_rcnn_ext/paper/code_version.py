"""A hash of the code that can change a result; what only a reader sees does not change it.

Records carry it: figures of two versions are not mixed. Comments, docstrings, blank lines and
blanks at line ends are left out, and all Python versions that this package supports agree, so
nothing here depends on how one of them cuts a file into tokens or names the nodes of its tree.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
PLACES = ("ops", "modeling", "data", "evaluation", "engine", "config.py")

# A string, whose '#' begins no comment, or a comment. Strings within an f-string's braces have
# other quotes than itself: the same ones are new in Python 3.12.
_STRING_OR_COMMENT = re.compile(
    rb"\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''"
    rb"|\"(?:\\.|[^\\\"\n])*\"|'(?:\\.|[^\\'\n])*'|#[^\n]*",
    re.DOTALL,
)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # of statements, in any of them


@functools.cache
def code_hash(package: Path = PACKAGE) -> str:
    """sha256 over the files of PLACES: path and text of each; read once a process."""
    digest = hashlib.sha256()
    for name, path in sorted(_files(package)):
        text = bare(path.read_bytes())
        digest.update(f"{name}\n{len(text)}\n".encode() + text)
    return digest.hexdigest()


def bare(source: bytes) -> bytes:
    """A file's code without what changes no result; a line break within a string becomes NUL."""
    source = source.replace(b"\r\n", b"\n")
    idle = _idle_strings(source)

    def replace(found: re.Match[bytes]) -> bytes:
        at = found.start()
        if source[at] == ord("#") or any(first <= at < last for first, last in idle):
            return b""
        return found[0].replace(b"\n", b"\0")  # else these lines would lose blanks at their ends

    lines = (line.rstrip() for line in _STRING_OR_COMMENT.sub(replace, source).split(b"\n"))
    return b"\n".join(line for line in lines if line)


def _files(package: Path) -> Iterator[tuple[str, Path]]:
    """(path below the package, file), the same on all systems."""
    for place in PLACES:
        path = package / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            yield file.relative_to(package).as_posix(), file


def _idle_strings(source: bytes) -> list[tuple[int, int]]:
    """First byte and end of each string that is a statement: docstrings."""
    starts = [0]  # of lines
    starts += [found.end() for found in re.finditer(rb"\n", source)]
    places = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        for block in _BLOCKS:
            waiting += getattr(node, block, ())
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            one = node.value
            if isinstance(one.value, str) and one.end_lineno and one.end_col_offset:
                first = starts[one.lineno - 1] + one.col_offset
                places.append((first, starts[one.end_lineno - 1] + one.end_col_offset))
    return places

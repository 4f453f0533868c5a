"""Named edits of source text. An edit whose text is not there as often as it should stops."""

from typing import NamedTuple

from .errors import BuildError


class Hunk(NamedTuple):
    """In `file` (below detectron2/), replace `old`, found `count` times, by `new`.

    With `upto`, what is replaced runs from `old` up to, not including, `upto`: for longer pieces.
    """

    file: str
    old: str
    new: str
    count: int = 1
    upto: str | None = None


class Edit(NamedTuple):
    name: str
    why: str  # what happens without it
    until: str  # when it can go
    hunks: tuple


def apply(edits, texts):
    """Apply the edits to `texts` (file -> text), in place; return the files that changed."""
    changed = set()
    for edit in edits:
        for hunk in edit.hunks:
            if hunk.file not in texts:
                raise BuildError(f"edit {edit.name}: there is no file {hunk.file}.")
            texts[hunk.file] = _replace(edit.name, hunk, texts[hunk.file])
            changed.add(hunk.file)
    return changed


def _replace(name, hunk, text):
    _expect(name, hunk.file, hunk.old, hunk.count, text)
    if hunk.upto is None:
        return text.replace(hunk.old, hunk.new)
    _expect(name, hunk.file, hunk.upto, 1, text)
    start, end = text.index(hunk.old), text.index(hunk.upto)
    if hunk.count != 1 or end < start:
        raise BuildError(
            f"edit {name}: in {hunk.file} the end of the piece comes before its start, "
            f"or it is expected {hunk.count} times instead of once."
        )
    return text[:start] + hunk.new + text[end:]


def _expect(name, file, part, count, text):
    found = text.count(part)
    if found != count or not part:
        raise BuildError(
            f"edit {name}: its text is in {file} {found} times, expected {count}. The text:\n{part}"
        )

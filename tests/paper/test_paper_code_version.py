"""The hash of the code: blind to what only a reader sees, to nothing else."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import pytest

from mask_rcnn_ext.paper.code_version import _STRING_OR_COMMENT, PACKAGE, PLACES, bare, code_hash

RPN = '''"""Proposals. # not a comment
"""

import re  # the standard library's


class Anchors:
    """Boxes of all places."""

    side: int = 16
    """In pixels."""

    def of(self, level):  # é
        \'\'\'One level's.\'\'\'
        text = """first

        second   # of the string
        """
        if level:
            "no docstring, and without effect"
            return text
        return f"{self.side:#x} {'#'} {{" + r"\\"#"
'''
FILES = {
    "config.py": "KEY = 1\n",
    "ops/reference.py": "def pool():\n    return 0\n",
    "modeling/rpn/anchors.py": RPN,
    "data/coco.py": "",
    "evaluation/coco.py": "",
    "engine/trainer.py": "",
}
# On each Python that runs this test.
DIGEST = "3c8108e624fd753f8d086bc9ab17b4da8b8b60b3f22f0fa6e08c18e2d366049d"


@pytest.fixture
def package(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path


def _hash(package: Path) -> str:
    code_hash.cache_clear()
    return code_hash(package)


def _edit(package: Path, old: str, new: str) -> None:
    path = package / "modeling/rpn/anchors.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_bytes(text.replace(old, new).encode())


def test_every_python_gives_this_digest(package):
    assert _hash(package) == DIGEST


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # the standard library's", ""),
        ("# é", '# other \' and """ words'),
        ("import re", "# a line\n\n    # and one that is indented\nimport re"),
        ("Proposals. # not", "Other words, not"),
        ("Boxes of all places.", "Boxes\n\n    of all   \n    places: é."),
        ("One level's.", ""),
        ("In pixels.", "In cells."),
        ("no docstring, and", "changed"),
        ("import re", "\n\n\nimport re"),
        ("import re  ", "import re\t "),
        ("\n\n    side", "   \n  \n    side"),
    ],
)
def test_what_only_a_reader_sees_does_not_count(package, old, new):
    before = _hash(package)
    _edit(package, old, new)
    assert _hash(package) == before


def test_line_ends_of_another_system_do_not_count(package):
    before = _hash(package)
    path = package / "modeling/rpn/anchors.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert _hash(package) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= 16", "= 32"),
        ("# of the string", "# of a string"),
        ("{'#'}", "{'##'}"),
        (":#x}", ":x}"),
        ('r"\\"#"', 'r"\\"##"'),
        ("first\n\n", "first\n"),
        ("first\n", "first  \n"),
        ("            return text", "        return text"),
        ("Anchors:", "Anchor:"),
    ],
)
def test_code_counts(package, old, new):
    before = _hash(package)
    _edit(package, old, new)
    assert _hash(package) != before


@pytest.mark.parametrize("place", PLACES)
def test_a_file_counts_with_its_name(package, place):
    before = _hash(package)
    if place.endswith(".py"):
        (package / place).write_text("KEY = 2\n")
    else:
        (package / place / "more.py").touch()
    first = _hash(package)
    assert first != before
    if not place.endswith(".py"):
        (package / place / "more.py").rename(package / place / "other.py")
        assert _hash(package) not in (before, first)


def test_text_does_not_move_from_file_to_file_unseen(package):
    (package / "data/coco.py").write_text("a = 1\nb = 2\n")
    (package / "data/coco2.py").write_text("c = 3\n")
    before = _hash(package)
    (package / "data/coco.py").write_text("a = 1\n")
    (package / "data/coco2.py").write_text("b = 2\nc = 3\n")
    assert _hash(package) != before


def test_rooms_that_change_no_result_do_not_count(package):
    before = _hash(package)
    for name in ("tools", "paper", "visualization"):
        (package / name).mkdir()
        (package / name / "x.py").write_text("x = 1\n")
    (package / "errors.py").write_text("x = 1\n")
    (package / "ops" / "notes.txt").write_text("x = 1\n")
    assert _hash(package) == before


def test_what_is_left_of_a_file():
    source = b'"""Doc."""\nx = "#"  # c\n\n\ndef f():\n    """Doc."""\n    return """a \n\n"""\n'
    assert bare(source) == b'x = "#"\ndef f():\n    return """a \0\0"""'


def test_comments_are_found_where_python_finds_them():
    """In the package itself, which has strings of all kinds."""
    for place in PLACES:
        path = PACKAGE / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            text = file.read_text(encoding="utf-8")
            found = [
                one[0].decode()
                for one in _STRING_OR_COMMENT.finditer(text.encode())
                if one[0].startswith(b"#")
            ]
            if "#" in text:
                tokens = tokenize.generate_tokens(io.StringIO(text).readline)
                assert found == [t.string for t in tokens if t.type == tokenize.COMMENT], file


def test_it_is_read_once_a_process(package):
    before = _hash(package)
    (package / "config.py").write_text("KEY = 2\n")
    assert code_hash(package) == before

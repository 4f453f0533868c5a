"""docs/tables.md is the report of records/: nobody has written a figure into it by hand.

The code has changed since they were made, perhaps; the records are read as those of their own code.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from mask_rcnn_ext.paper import find_records
from mask_rcnn_ext.paper.claims import Claims
from mask_rcnn_ext.tools import tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the report of the committed records into a folder and names it."""
    codes = {one.record.code for one in find_records(ROOT / "records", "scenes")}
    assert len(codes) == 1, "records of several code versions are never in one report"
    monkeypatch.setattr("mask_rcnn_ext.tools.tables.kept.code_hash", lambda: next(iter(codes)))

    # As for a file in docs/.
    monkeypatch.setattr("mask_rcnn_ext.tools.tables.report._configs_from", lambda _: "../configs")

    def write() -> Path:
        parser = argparse.ArgumentParser()
        tables.add_arguments(parser)
        words = ["report", "--data", "scenes", "--records", ROOT / "records"]
        (tmp_path / "docs").mkdir()
        words += ["--markdown", tmp_path / "docs" / "tables.md"]
        assert tables.run(parser.parse_args([*map(str, words)])) == 0
        return tmp_path / "docs"

    return write


def test_its_figures_are_those_of_the_records(write, monkeypatch):
    """All but the claims, whose intervals take half a minute."""
    monkeypatch.setattr("mask_rcnn_ext.paper.report.judge", lambda *_: Claims((), ()))
    found = _lines(write() / "tables.md")
    assert found == _lines(ROOT / "docs" / "tables.md")
    assert sum("| ours " in line for line in found) >= 40


@pytest.mark.slow
def test_it_is_the_report_byte_for_byte(write):
    written = write()
    for folder in (written, ROOT / "docs"):
        assert (folder / "tables.md").is_file()
    assert (written / "tables.md").read_bytes() == (ROOT / "docs" / "tables.md").read_bytes()
    drawings = {path.name: path.read_bytes() for path in (written / "tables").iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / "docs" / "tables").iterdir()}
    assert drawings == kept


def _lines(path: Path) -> list[str]:
    """Rows of figures, and where they were measured; nothing of tables of claims."""
    beginnings = ("| ", "- **", "Order by ", "The paper's on ")
    of_claims = ("verdict", "**confirmed**", "**contradicted**", "| open ")
    lines = path.read_text().splitlines()
    return [
        line
        for line in lines
        if line.startswith(beginnings)
        and not set(line) <= set("|-: ")
        and not any(word in line for word in of_claims)
    ]

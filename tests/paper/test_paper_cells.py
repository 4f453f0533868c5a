"""The paper's figures in configs/paper/: none lost, none changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from mask_rcnn_ext.paper import Paper, load_paper

SOURCE = Path(__file__).resolve().parents[3] / "shared" / "paper_tables.yaml"
CELLS, DASHES, OURS = 332, 11, 47
# Of all cells with their tables, rows and columns. A figure that was copied wrong changes it, too.
DIGEST = "43c24f6c464f2b06d7e375fcae3b6c10fc98dc09e43d88fe2ce400fc8ebd8eca"


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


@pytest.fixture(scope="module")
def source():
    if not SOURCE.is_file():
        pytest.skip(f"the figures' source is not at {SOURCE}")
    return yaml.safe_load(SOURCE.read_text())


def _cells(paper: Paper) -> list[list[str | float | None]]:
    return [
        [table.table, row.name, str(row.facts), column, value]
        for table in paper.tables.values()
        for row in table.rows
        for column, value in row.paper.items()
    ]


def test_no_figure_is_lost_or_changed(paper):
    cells = _cells(paper)
    assert len(cells) == CELLS
    assert sum(cell[-1] is None for cell in cells) == DASHES
    rows = [row for table in paper.tables.values() for row in table.rows]
    assert sum(row.stage is not None for row in rows) == OURS
    digest = hashlib.sha256(json.dumps(cells).encode()).hexdigest()
    assert digest == DIGEST


def test_tables_are_the_papers(paper, source):
    assert list(paper.tables) == [table["id"] for table in source["tables"]]
    for theirs in source["tables"]:
        ours = paper.tables[theirs["id"]]
        assert ours.title == theirs["title"]
        assert ours.dataset == theirs["dataset"]
        assert list(ours.columns) == theirs["metrics"]
        assert ours.note == theirs.get("note", "")
        delta = ours.printed_delta
        assert (delta.paper if delta else None) == theirs.get("printed_delta")
        for name, column in ours.columns.items():
            at = column.split or ours.split
            if theirs["id"] == "7":  # AP_val: val; all other columns: test
                assert at == ("val" if name == "AP_val" else "test")
            else:
                assert at == theirs["split"]


def test_all_cells_are_the_papers(paper, source):
    compared = 0
    for theirs in source["tables"]:
        ours = paper.tables[theirs["id"]].rows
        for mine, row in zip(ours, theirs["rows"], strict=True):
            facts = {k: v for k, v in row.items() if k not in ("name", "values")}
            assert (mine.name, mine.facts, mine.paper) == (row["name"], facts, row["values"])
            compared += len(row["values"])
    assert compared == CELLS


def test_figures_in_the_text_are_the_papers(paper, source):
    ours = {
        one.id: {name: figure.paper for name, figure in one.figures.items()}
        for one in paper.comparisons.values()
    }
    words = ("id", "dataset", "split", "backbone", "metric", "section", "note")
    for theirs in source["in_text_numbers"]:
        mine = ours[theirs["id"]]
        if theirs["id"] == "cityscapes_val_test_bias":
            for ours_name, row_id, key in (
                ("fine", "fine", "fine_only"),
                ("fine_coco", "fine-coco", "fine_plus_coco"),
            ):
                row = next(r for r in paper.tables["7"].rows if r.id == row_id)
                for name, (val, test) in theirs[key].items():
                    assert (mine[f"{ours_name}_{name}"], row.paper[name]) == (val, test)
        elif theirs["id"] == "qualitative_figures":
            for figure in (f"{mine['figure_5_mask_AP']:g} mask AP", "5 fps; Figure 7"):
                assert figure in theirs["note"]
            assert f"{mine['figure_7_keypoint_AP']:g} keypoint AP, 5 fps" in theirs["note"]
            assert mine["figure_5_fps"] == mine["figure_7_fps"] == 5
        else:
            assert mine == {k: v for k, v in theirs.items() if k not in words}
    timing = {k: v for k, v in source["protocol"]["timing"].items() if isinstance(v, int | float)}
    assert ours["timing"] == {k: v for k, v in timing.items() if k != "training_gpus"}
    cityscapes = source["protocol"]["cityscapes"]
    assert list(ours["timing_cityscapes"].values()) == [
        cityscapes["training_hours"],
        cityscapes["coco_finetune"]["training_hours"],
    ]
    nonlocal_fps = source["protocol"]["appendix_b_detection"]["non_local"]["fps"]
    assert ours["timing_nonlocal"] == {"fps": nonlocal_fps}
    overhead = source["protocol"]["coco_inference"]["mask_overhead_over_faster_rcnn"]
    assert f"about {ours['mask_overhead']['percent']:g}%" in overhead


def test_differences_are_those_of_the_cells(paper):
    """A gain in the text is the difference of two rows, where both are in the tables."""
    cells = {
        (row.stage, column.key, column.split or table.split): row.paper[name]
        for table in paper.tables.values()
        for row in table.rows
        if row.stage
        for name, column in table.columns.items()
    }
    checked = 0
    for one in paper.comparisons.values():
        for name, figure in one.figures.items():
            here = cells.get((figure.of, figure.key, one.split))
            less = cells.get((figure.minus, figure.minus_key or figure.key, one.split))
            if here is not None and less is not None:
                # "about 3 points", printed as 30.3 and 26.9
                about = 0.5 if one.id == "roialign_gain" else 0.001
                assert here - less == pytest.approx(figure.paper, abs=about), (one.id, name)
                checked += 1
            elif here is not None and figure.minus is None:
                assert here == figure.paper, (one.id, name)
                checked += 1
    assert checked >= 15
    for table in paper.tables.values():
        if (delta := table.printed_delta) is not None:
            rows = {row.id: row.paper for row in table.rows}
            for column, points in delta.paper.items():
                difference = rows[delta.row][column] - rows[delta.minus][column]
                assert difference == pytest.approx(points, abs=0.11)  # printed of unrounded ones

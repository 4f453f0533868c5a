"""results.json is flat, strict JSON."""

from __future__ import annotations

import json

from mask_rcnn_ext.engine.record import flatten_results, write_results


def test_nested_results_become_one_level():
    results = {"bbox": {"AP": 12.5, "AP-cat": float("nan")}, "segm": {"AP": 3}}
    assert flatten_results(results) == {"bbox/AP": 12.5, "bbox/AP-cat": None, "segm/AP": 3.0}


def test_several_sets_keep_their_names(tmp_path):
    write_results(str(tmp_path), {"val": {"bbox": {"AP": 1.0}}, "test": {"bbox": {"AP": 2.0}}})
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "val/bbox/AP": 1.0,
        "test/bbox/AP": 2.0,
    }

"""`mask-rcnn-ext bench targets`: what it prints and writes; no time is judged."""

from __future__ import annotations

import json

import pytest

from mask_rcnn_ext.tools.cli import main


def test_the_table_and_the_file(tmp_path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "targets.json"
    words = ["bench", "targets", "--rois", "0", "5", "--sides", "14", "28", "--repeats", "2"]
    assert main([*words, "--threads", "1", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "5 RoIs, 28 x 28" in text
    assert "stock / ours" in text
    measured = json.loads(file.read_text())
    assert [(r["rois"], r["side"]) for r in measured["results"]] == [
        (0, 14), (0, 28), (5, 14), (5, 28),
    ]  # fmt: skip
    for result in measured["results"]:
        assert result["equal"] is True
        assert result["ours"]["median"] > 0
        assert result["stock"]["median"] > 0
    assert measured["threads"] == 1


def test_a_difference_is_shown(monkeypatch: pytest.MonkeyPatch, capsys):
    from mask_rcnn_ext.tools.bench import targets

    right = targets.polygon_targets
    monkeypatch.setattr(targets, "polygon_targets", lambda *args: ~right(*args))
    assert main(["bench", "targets", "--rois", "3", "--sides", "14", "--repeats", "1"]) == 0
    assert " NO" in capsys.readouterr().out


def test_bad_numbers_are_a_wrong_use(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "targets", "--sides", "0"])
    assert ended.value.code == 2
    assert "'0'" in capsys.readouterr().err

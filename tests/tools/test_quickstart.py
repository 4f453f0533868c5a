"""The quick start around its training: the second run, other settings, the closing table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.tools import quickstart
from mask_rcnn_ext.tools.cli import build_parser


@pytest.fixture
def small(monkeypatch):
    """A handful of scenes, and a training that only writes down what it was asked to do."""
    monkeypatch.setattr(quickstart, "TRAIN_IMAGES", 2)
    monkeypatch.setattr(quickstart, "VAL_IMAGES", 1)
    monkeypatch.setattr(quickstart, "IMAGE_SIZE", 32)
    calls: list[list[str]] = []

    def train(words: list[str], data: Path) -> int:
        calls.append(words)
        out = Path(words[words.index("OUTPUT_DIR") + 1])
        record = {"state": "finished", "overrides": words[3:], "wall_seconds": 60.0}
        record |= {"device": "cpu", "peak_memory_mb": 1024.0, "seed": 1}
        (out / "run.json").write_text(json.dumps(record))
        (out / "results.json").write_text(json.dumps(train.results))
        return 0

    names = ("segm/AP", "segm/AP50", "segm/AP75", "bbox/AP", "bbox/AP50")
    train.results = dict.fromkeys(names, 99.0)
    monkeypatch.setattr(quickstart, "_train", train)
    return train, calls


def _run(out: Path, *words: str) -> int:
    args = build_parser().parse_args(["quickstart", "--out", str(out), *words])
    return args.run(args)


def test_it_makes_scenes_trains_and_prints_measured_beside_expected(small, tmp_path, capsys):
    assert _run(tmp_path / "q") == 0
    out = capsys.readouterr().out
    assert "segm/AP         99.0" in out
    assert f"{quickstart.EXPECTED['segm/AP']:.1f}" in out
    annotations = tmp_path / "q/data/scenes/annotations"
    assert len(json.loads((annotations / "instances_train.json").read_text())["images"]) == 2


def test_a_finished_one_is_not_trained_again_unless_forced(small, tmp_path, capsys):
    calls = small[1]
    assert [_run(tmp_path / "q") for _ in range(2)] == [0, 0]
    assert len(calls) == 1
    assert "finished quick start" in capsys.readouterr().out
    assert _run(tmp_path / "q", "--force") == 0
    assert len(calls) == 2


def test_other_settings_into_the_same_folder_are_refused(small, tmp_path):
    assert _run(tmp_path / "q") == 0
    with pytest.raises(UsageError, match="--force deletes it"):
        _run(tmp_path / "q", "--seed", "2")


def test_an_ap_far_below_the_expected_one_is_a_failure(small, tmp_path, capsys):
    small[0].results["segm/AP"] = quickstart.EXPECTED["segm/AP"] - quickstart.TOLERANCE - 1
    assert _run(tmp_path / "q") == 1
    assert "below the expected figure" in capsys.readouterr().err


def test_an_interrupted_training_passes_its_exit_code_on(small, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "_train", lambda words, data: 1)
    assert _run(tmp_path / "q") == 1


def test_the_expected_figures_are_measured_ones():
    assert quickstart.EXPECTED["segm/AP"] >= 45

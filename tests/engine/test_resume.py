"""What a command means in a folder that holds a run already."""

from __future__ import annotations

import json

import pytest
import yaml

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.resume import (
    EVALUATION,
    NOTHING,
    TRAINING,
    Change,
    changes_of,
    goes_on,
    is_finished,
    look_at,
    sentence,
)
from mask_rcnn_ext.errors import UsageError

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


@pytest.fixture
def cfg(tmp_path):
    return load_config(CONFIG, ["OUTPUT_DIR", str(tmp_path), "SEED", "3"])


def leave_run(folder, cfg, state="running", names=("model_0000009.pth",)):
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "run.json").write_text(json.dumps({"state": state}))
    for name in names:
        (folder / name).touch()


def changed(cfg, *words):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(words))
    return cfg


def test_an_empty_folder_holds_no_run(tmp_path, cfg):
    assert look_at(tmp_path, cfg) is None
    assert look_at(tmp_path / "none", cfg) is None
    assert not goes_on(None, "f", asked=True)
    assert not is_finished(None)


def test_the_same_run_goes_on_without_being_asked(tmp_path, cfg):
    leave_run(tmp_path, cfg)
    earlier = look_at(tmp_path, cfg)
    assert earlier.has_checkpoint
    assert not earlier.finished
    assert earlier.seed == 3
    assert earlier.changes == ()
    assert goes_on(earlier, "f", asked=False)


def test_a_run_without_a_checkpoint_starts_anew_with_its_seed(tmp_path, cfg):
    leave_run(tmp_path, cfg, names=())
    earlier = look_at(tmp_path, cfg)
    assert earlier.seed == 3
    assert not goes_on(earlier, "f", asked=True)


def test_any_seed_is_the_same_run(tmp_path, cfg):
    leave_run(tmp_path, cfg)
    assert look_at(tmp_path, changed(cfg, "SEED", -1)).changes == ()
    assert [str(c) for c in look_at(tmp_path, changed(cfg, "SEED", 4)).changes] == [
        "SEED: 3 -> 4 (changes the training)"
    ]


def test_another_run_is_refused_unless_asked_for(tmp_path, cfg, caplog):
    leave_run(tmp_path, cfg)
    other = changed(cfg, "SOLVER.BASE_LR", 0.5, "TEST.BEST_METRIC", "segm/AP")
    earlier = look_at(tmp_path, other)
    with pytest.raises(UsageError, match=r"(?s)BASE_LR: 0\.001 -> 0\.5.*--resume.*OUTPUT") as error:
        goes_on(earlier, "f", asked=False)
    assert "BEST_METRIC" not in str(error.value)
    caplog.set_level("WARNING")
    assert goes_on(earlier, "f", asked=True)
    assert "SOLVER.BASE_LR: 0.001 -> 0.5 (changes the training)" in caplog.text
    assert "TEST.BEST_METRIC: '' -> 'segm/AP' (changes the evaluation)" in caplog.text


def test_what_changes_no_training_is_no_reason_to_refuse(tmp_path, cfg):
    leave_run(tmp_path, cfg)
    words = ["DATALOADER.NUM_WORKERS", 3, "LOG.PERIOD", 7, "TEST.DETECTIONS_PER_IMAGE", 9]
    assert goes_on(look_at(tmp_path, changed(cfg, *words)), "f", asked=False)


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("SOLVER.BASE_LR", TRAINING),
        ("DATALOADER.SAMPLER_TRAIN", TRAINING),
        ("DATALOADER.NUM_WORKERS", NOTHING),
        ("TEST.AUG.FLIP", EVALUATION),
        ("TEST.PRECISE_BN.ENABLED", TRAINING),
        ("TESTING", TRAINING),
        ("LOG.WRITERS", NOTHING),
    ],
)
def test_the_longest_prefix_says_what_a_key_does(key, effect):
    assert Change(key, 1, 2).effect == effect


def test_every_key_of_the_table_is_one():
    from mask_rcnn_ext.config import flatten
    from mask_rcnn_ext.engine import resume

    known = dict(flatten(load_config(None)))
    for key in resume._EFFECTS:
        assert not key or any(f"{name}.".startswith(f"{key}.") for name in known), key


def test_a_key_that_the_earlier_config_lacks_had_its_default(cfg):
    before = yaml.safe_load(cfg.dump())
    del before["LOG"], before["SOLVER"]["ACCUMULATION_STEPS"]
    assert changes_of(before, cfg) == []
    found = changes_of(before, changed(cfg, "SOLVER.ACCUMULATION_STEPS", 2))
    assert [str(c) for c in found] == [
        "SOLVER.ACCUMULATION_STEPS: 1 -> 2 (changes the training)",
    ]


def test_finished_only_if_nothing_that_matters_changed(tmp_path, cfg):
    leave_run(tmp_path, cfg, "finished", ["model_final.pth"])
    assert is_finished(look_at(tmp_path, cfg))
    assert is_finished(look_at(tmp_path, changed(cfg, "LOG.PERIOD", 7)))
    assert not is_finished(look_at(tmp_path, changed(cfg, "SOLVER.MAX_ITER", 9000)))
    assert not is_finished(look_at(tmp_path, changed(cfg, "TEST.DETECTIONS_PER_IMAGE", 7)))
    (tmp_path / "model_final.pth").rename(tmp_path / "model_0000001.pth")
    assert not is_finished(look_at(tmp_path, cfg))


@pytest.mark.parametrize("content", ["", "{", "[1]", "\0"])
def test_broken_files_of_an_earlier_run_are_no_reason_to_stop(tmp_path, cfg, content):
    leave_run(tmp_path, cfg)
    (tmp_path / "config.yaml").write_text(content)
    (tmp_path / "run.json").write_text(content)
    earlier = look_at(tmp_path, cfg)
    assert (earlier.seed, earlier.changes, earlier.finished) == (None, (), False)
    assert goes_on(earlier, "f", asked=False)


def test_the_sentence():
    assert sentence(0, 9, "R-50.pkl").startswith("A new run from the weights R-50.pkl: 9 iter")
    assert "from random weights" in sentence(0, 9, "")
    assert "4 of 9 iterations are done, 5 follow" in sentence(4, 9, "model_0000003.pth")
    assert "the evaluation is left" in sentence(9, 9, "model_final.pth")
    assert "12 iterations are done, more than the 9" in sentence(12, 9, "model_final.pth")

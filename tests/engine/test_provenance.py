"""Code, config and libraries of a result, as values that change when those do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine import provenance as provenance_module
from mask_rcnn_ext.engine.provenance import code_version, config_hash, provenance, versions


def test_the_config_hash_follows_what_counts():
    plain = config_hash(load_config(None))
    assert len(plain) == 64
    for key, value in (
        ("SOLVER.BASE_LR", "0.015"),
        ("SEED", "4"),
        ("MODEL.WEIGHTS", "other.pth"),
        ("DATASETS.TRAIN", "('a',)"),
        ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"),
    ):
        assert config_hash(load_config(None, [key, value])) != plain, key


def test_the_config_hash_leaves_out_what_does_not():
    plain = config_hash(load_config(None))
    for key, value in (
        ("OUTPUT_DIR", "elsewhere"),
        ("DATALOADER.NUM_WORKERS", "1"),
        ("SOLVER.CHECKPOINT_PERIOD", "7"),
        ("TEST.SAMPLE_PICTURES", "3"),
        ("LOG.PERIOD", "3"),
        ("LOG.PROJECT", "mine"),
    ):
        assert config_hash(load_config(None, [key, value])) == plain, key


def test_the_order_of_keys_does_not_count():
    one = {"A": {"X": 1, "Y": (2, 3)}, "B": 4}
    other = {"B": 4, "A": {"Y": [2, 3], "X": 1}}
    assert config_hash(CfgNode(one)) == config_hash(CfgNode(other))


def test_every_key_that_is_left_out_exists():
    from mask_rcnn_ext.config import flatten

    known = dict(flatten(load_config(None)))
    for key in provenance_module.UNHASHED_KEYS:
        assert key in known or any(one.startswith(key) for one in known), key


def test_a_config_from_its_own_yaml_has_the_same_hash(tmp_path):
    cfg = load_config("quickstart/mask_rcnn_R_18_FPN_scenes.yaml")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert config_hash(load_config(tmp_path / "config.yaml")) == config_hash(cfg)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of a package of its own, with one commit; (its folder, its main file)."""
    package = tmp_path / "projects" / "package"
    (package / "engine").mkdir(parents=True)
    file = package / "engine" / "provenance.py"
    file.write_text("one\n")
    (tmp_path / ".gitignore").write_text("*.tmp\n")

    def git(*words):
        settings = ["-c", "user.name=n", "-c", "user.email=e"]
        command = ["git", "-C", str(tmp_path), *settings, *words]
        subprocess.run(command, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance_module, "__file__", str(file))
    return tmp_path, file


def test_a_clean_checkout(checkout):
    _, file = checkout
    found = code_version(str(file))
    assert found["changes"] is None
    assert len(found["commit"]) == 40


def test_changes_have_a_hash_of_their_own(checkout):
    _, file = checkout
    file.write_text("two\n")
    first = code_version(str(file))
    assert first["commit"].endswith("+changes")
    assert code_version(str(file)) == first
    file.write_text("three\n")
    assert code_version(str(file))["changes"] != first["changes"]


def test_a_users_git_settings_do_not_change_the_hash(checkout):
    root, file = checkout
    file.write_text("two\n")
    plain = code_version(str(file))
    for key, value in (("diff.noprefix", "true"), ("color.ui", "always")):
        subprocess.run(["git", "-C", str(root), "config", key, value], check=True)
    assert code_version(str(file)) == plain


def test_new_files_of_the_package_count_and_others_do_not(checkout):
    root, file = checkout
    (root / "notes.txt").touch()
    (file.parent / "ignored.tmp").touch()
    assert code_version(str(file))["changes"] is None
    new = file.parent / "new.py"
    new.write_text("a = 1")
    first = code_version(str(file))
    assert first["commit"].endswith("+changes")
    new.write_text("a = 2")
    assert code_version(str(file))["changes"] != first["changes"]


def test_a_deleted_file_is_a_change(checkout):
    root, file = checkout
    (root / ".gitignore").unlink()
    first = code_version(str(file))
    assert first["commit"].endswith("+changes")
    (root / ".gitignore").write_text("")
    assert code_version(str(file))["changes"] not in (None, first["changes"])


def test_a_file_that_git_does_not_know_has_no_commit(checkout):
    _, file = checkout
    other = file.parent / "installed.py"
    other.touch()
    assert code_version(str(other)) == {"commit": None, "changes": None}


def test_no_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert code_version(str(checkout[1])) == {"commit": None, "changes": None}


def test_versions_are_those_of_what_runs():
    found = versions()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["python"].count(".") == 2


def test_provenance_is_plain_values(tmp_path):
    found = provenance(load_config(None), {"coco": "abc"})
    assert set(found) == {"commit", "changes", "config_hash", "versions", "datasets"}
    assert found["datasets"] == {"coco": "abc"}
    torch.save(found, tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", weights_only=True) == found
    assert Path(provenance_module.__file__).name == "provenance.py"

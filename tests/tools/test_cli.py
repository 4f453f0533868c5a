"""The console command: help everywhere, exit codes, messages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mask_rcnn_ext.errors import DataError, UserError, exit_code_of
from mask_rcnn_ext.tools.cli import VERBS, main


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_of_every_verb(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "usage:" in out
    assert len(out.splitlines()) > 5


def test_every_verb_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("words", [[], ["no-such-verb"], ["scenes"], ["quickstart", "--seed", "x"]])
def test_wrong_usage_is_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_train_without_a_config_is_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train"])
    assert caught.value.code == 2
    assert "--config-file is required" in capsys.readouterr().err


def test_user_errors_are_one_message_and_their_code(capsys):
    def fail() -> int:
        raise DataError("a.json is not JSON")

    assert exit_code_of(fail, "prog") == 1
    assert capsys.readouterr().err == "prog: a.json is not JSON\n"
    assert main(["train", "--config-file", "nowhere.yaml"]) == 2
    assert "nowhere.yaml does not exist" in capsys.readouterr().err


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 // 0, "prog")


def test_a_message_that_came_as_a_workers_text_is_found_again():
    text = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        'last):\n  File "x.py", line 1\nmask_rcnn_ext.errors.UserError: image a.jpg: broken\n'
    )
    assert str(UserError(text)) == "image a.jpg: broken"


def test_without_detectron2_help_and_scenes_work_and_training_says_what_to_install(tmp_path):
    script = (
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'detectron2' else find(name, *a)\n"
        "class Hidden:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'detectron2': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from mask_rcnn_ext.tools.cli import main\n"
        "assert main(['scenes', '--out', sys.argv[1], '--images', '2', '--size', '32']) == 0\n"
        "sys.exit(main(['train', '--config-file', 'x.yaml']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "scenes")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "pip install ./third_party/detectron2" in result.stderr

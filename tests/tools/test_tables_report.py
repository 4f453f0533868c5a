"""`tables report`: the same bytes anywhere, nothing of others overwritten, bad input named."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_records import made_folder, write_made

from mask_rcnn_ext import resources
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.paper import Paper, load_paper
from mask_rcnn_ext.resources import configs_dir
from mask_rcnn_ext.tools import tables

PROJECTS = Path(tables.__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


@pytest.fixture(scope="module")
def records(paper, tmp_path_factory) -> Path:
    return made_folder(tmp_path_factory.mktemp("tables") / "records", paper)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few(paper, tmp_path) -> Path:
    """A folder with one record, without matches: there is nothing to draw from."""
    stage = "small_mask_R_50_C4"
    write_made(tmp_path / "few", paper, stage, 1, {"segm/AP50": 20.0}, picture=True)
    return tmp_path / "few"


def _report(*words: object) -> int:
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    return tables.run(parser.parse_args(["report", *map(str, words)]))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_bytes_on_another_machine(records, tmp_path, capsys):
    words = ["--table", "2b", "2c", "--pictures", "--markdown", "t.md", "--html", "t.html"]
    words += ["--json", "t.json", "--records"]
    copied = tmp_path / "elsewhere" / "kept of it"
    # In another order on disk, with other times.
    for path in sorted(records.rglob("*"), reverse=True):
        if path.is_file():
            target = copied / path.relative_to(records)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    os.chdir(one)
    assert _report(*words, records) == 0
    printed = capsys.readouterr()
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECTS),
        "PYTHONHASHSEED": "7",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "utf-8",
        "LC_ALL": "C",
        "TZ": "Pacific/Kiritimati",
        "DETECTRON2_DATASETS": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mask_rcnn_ext.tools", "tables", "report", *words, copied],
        cwd=other, env=environment, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    files, others = _files(one), _files(other)
    assert list(files) == list(others)
    assert [name for name in files if files[name] != others[name]] == []
    assert done.stdout.decode() == printed.out
    assert {"t.md", "t.html", "t.json", "t/table_2c.svg", "t/curves_2b.svg"} <= set(files)
    assert [name for name in files if name.endswith(".webp")]
    for name, content in files.items():
        assert str(tmp_path).encode() not in content, name
        assert b"\r" not in content or name.endswith(".webp"), name


def test_the_head_says_which_command_wrote_it(few, here):
    assert _report("--records", few, "--markdown", "t.md", "--table", "2C", "in-text") == 0
    first = (here / "t.md").read_text(encoding="utf-8").splitlines()[0]
    command = re.search(r"`mask-rcnn-ext tables (.+)`", first)[1]
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    args = parser.parse_args(command.split())
    assert (args.data, args.table) == ("scenes", ["2c", "in-text"])


def test_only_a_summary_without_files(few, here, capsys):
    before = _files(here)
    assert _report("--records", few) == 0
    assert _files(here) == before
    printed = capsys.readouterr().out
    assert "Table 2c" in printed
    assert "1 of 5 rows of ours measured" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_the_tables_that_are_asked_for_in_the_papers_order(few, here):
    assert _report("--records", few, "--table", "2c", "2b", "--json", "t.json") == 0
    numbers = json.loads((here / "t.json").read_text())
    assert list(numbers["tables"]) == ["2b", "2c"]
    assert numbers["in_text"] == {}
    assert _report("--records", few, "--table", "in_text", "--json", "t.json") == 0
    numbers = json.loads((here / "t.json").read_text())
    assert numbers["tables"] == {}
    assert "roialign_gain" in numbers["in_text"]


def test_records_that_cannot_be_read_are_named(few, capsys):
    broken = few / "scenes" / "small_mask_R_50_C5" / "seed_2"
    broken.mkdir(parents=True)
    (broken / "record.json").write_bytes(b'{"format": 1, "scale"')
    assert _report("--records", few, "--table", "2d") == 0
    errors = capsys.readouterr().err
    assert f"ignored: {broken / 'record.json'} is not a whole record" in errors


def test_a_folder_without_records(here, capsys):
    (here / "empty").mkdir()
    assert _report("--records", "empty", "--markdown", "t.md") == 0
    assert "no row has been run" in capsys.readouterr().out
    text = (here / "t.md").read_text(encoding="utf-8")
    assert "no row has been run" in text
    assert "not run" in text


def test_no_folder_is_a_wrong_call(here):
    with pytest.raises(UsageError, match="there is no such folder; `mask-rcnn-ext tables run`"):
        _report()
    with pytest.raises(UsageError, match="--records nowhere"):
        _report("--records", "nowhere")


def test_records_of_another_scale_are_not_taken(few, capsys):
    assert _report("--records", few, "--data", "coco", "--table", "2c") == 0
    assert "0 records count" in capsys.readouterr().out


def test_an_unknown_table_has_its_nearest_named(few):
    with pytest.raises(UsageError, match="no table '2f'; did you mean 2"):
        _report("--records", few, "--table", "2f")


@pytest.mark.parametrize("option", ["--markdown", "--html", "--json"])
def test_a_file_in_a_missing_folder(few, option):
    with pytest.raises(UsageError, match=f"{option} no/t: there is no folder no"):
        _report("--records", few, option, "no/t")


@pytest.mark.parametrize("option", ["--markdown", "--html", "--json"])
def test_somebody_elses_file_stays(few, here, option):
    target = here / "t.any"
    target.write_text("mine")
    words = ["--records", few, "--table", "2c", option, target]
    with pytest.raises(UsageError, match="was not written by this command"):
        _report(*words)
    assert target.read_text() == "mine"
    assert _report(*words, "--force") == 0
    assert target.read_text(encoding="utf-8") != "mine"
    assert _report(*words) == 0  # it is ours now


@pytest.mark.parametrize("name", ["table_2c.svg", "pictures_2c_roialign-ave.webp"])
def test_somebody_elses_drawing_stays(few, here, name):
    before = _files(here)
    (here / "t").mkdir()
    theirs = here / "t" / name
    theirs.write_bytes(b"mine")
    words = ["--records", few, "--table", "2c", "--markdown", "t.md", "--pictures"]
    with pytest.raises(UsageError, match=name):
        _report(*words)
    assert _files(here) == before | {f"t/{name}": b"mine"}
    assert _report(*words, "--force") == 0
    assert _report(*words) == 0
    assert theirs.read_bytes() != b"mine"


def test_two_files_of_one_name(few):
    with pytest.raises(UsageError, match="--markdown and --html are both"):
        _report("--records", few, "--markdown", "t", "--html", "./t")


def test_pictures_are_for_markdown(few):
    with pytest.raises(UsageError, match="--pictures is for --markdown"):
        _report("--records", few, "--pictures")


def test_links_of_a_file_in_the_checkout_lead_to_the_configs(few, here, monkeypatch):
    """A checkout of its own; one beside it has no links."""
    shutil.copytree(configs_dir(), here / "checkout" / "configs")
    (here / "checkout" / "docs").mkdir()
    monkeypatch.setattr(resources, "configs_dir", lambda: here / "checkout" / "configs")
    place = Path("checkout") / "docs" / "t.md"
    assert _report("--records", few, "--table", "2c", "--markdown", place) == 0
    links = re.findall(r"^\[([^]]+)\]: (\S+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(links) == 5
    for name, link in links:
        assert f"| [{name}]" in place.read_text(encoding="utf-8")
        assert (place.parent / link).is_file()
    assert _report("--records", few, "--table", "2c", "--markdown", "t.md") == 0
    assert "]: " not in Path("t.md").read_text(encoding="utf-8")

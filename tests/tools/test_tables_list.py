"""`tables list`: every row, what it takes, and what of that is there."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import msgspec
import pytest

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.paper import Keys, NoFingerprint, Paper, Record, load_paper, write_record
from mask_rcnn_ext.paper.records import record_folder
from mask_rcnn_ext.resources import configs_dir
from mask_rcnn_ext.tools import tables
from mask_rcnn_ext.tools.tables.kept import fingerprints

SCENES = """
hardware: 2 CPU cores
data:
  made:
    sets: [scenes_train, scenes_val]
    images: 2000
    gigabytes: 0.1
    address: mask-rcnn-ext
    make: [{folder: scenes, images: 1900, val_images: 100, size: "64", seed: 1}]
stages:
  small_C4:
    kind: train
    config: scenes/Base-Scenes-FPN.yaml
    stands_for: [mask_R_50_C4]
    data: [made]
    hours: 0.1
    hours_from: measured
"""
ANNOTATIONS = ("train2014", "val2014", "minival2014", "valminusminival2014")


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch) -> Path:
    """A machine without data and weights."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _list(*words: object) -> int:
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    return tables.run(parser.parse_args(["list", *map(str, words)]))


def _blocks(text: str) -> dict[str, list[str]]:
    """Lines of each table, its title left out."""
    found = re.findall(r"^Table (\w+)  .*\n(?:.*\n)??(row .*\n(?:.+\n)*)", text, re.MULTILINE)
    return {name: rows.splitlines()[1:] for name, rows in found}


def _put(root: Path, *names: str) -> None:
    for name in names:
        path = root / "data" / name
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True)


def test_every_row_with_the_papers_figures(capsys):
    assert _list() == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines() if len(line.split()) > 1) <= 100
    blocks = _blocks(text)
    paper = load_paper()
    assert list(blocks) == list(paper.tables)
    for name, table in paper.tables.items():
        for row, line in zip(table.rows, blocks[name], strict=False):
            figures = ["-" if value is None else f"{value:.1f}" for value in row.paper.values()]
            words = line.split()
            assert words[: 1 + len(figures)] == [row.id, *figures]
            rest = words[1 + len(figures) :]
            if row.reference:
                assert rest == ["reference"]
            else:
                assert float(rest[0]) > 0
                assert rest[1] in ("data", "both")
                assert rest[2:] == ["not", "run"]
    for one in paper.comparisons.values():
        assert f"\n{one.id} (" in text
        for figure, value in one.figures.items():
            assert re.search(rf"\n    {figure} +{value.paper:g}  \S", text), figure
    assert "printed difference  +5.5  +7.1  +6.4\n" in text
    assert "Table 1  " in text
    assert "ours on" in text
    assert "weights X-101-64x4d-IN5k (weights/X-101-64x4d-IN5k.pth) missing: no public" in text
    assert text.endswith("78 rows, 64 of them ours: 65 stages, 1415 hours where each runs once.\n")


def test_one_table_has_its_footnotes_and_nothing_else(capsys):
    assert _list("--table", "2c") == 0
    text = capsys.readouterr().out
    assert list(_blocks(text)) == ["2c"]
    assert "In the text" not in text
    assert "Note: RoIWarp is bilinear but still quantizes the RoI" in text
    assert text.count("  * res5 with stride 2 on a 14 x 14 RoI") == 1
    assert text.endswith("5 rows, 5 of them ours: 7 stages, 216 hours where each runs once.\n")


def test_several_tables_and_the_text(capsys):
    assert _list("--table", "in_text", "9", "2B") == 0
    text = capsys.readouterr().out
    assert list(_blocks(text)) == ["2b", "9"]
    assert "mask_overhead (3.1)" in text


def test_rows_of_one_name_with_their_stages(capsys):
    assert _list("--row", "roipool") == 0
    text = capsys.readouterr().out
    assert re.findall(r"^Table (\w+), row roipool", text, re.MULTILINE) == ["2c", "2d", "6"]
    one = text.split("\n\n")[0]
    places = [one.index(f"  {name}  (") for name in ("rpn_R_50_C4", "proposals_R_50_C4")]
    places.append(one.index("  mask_R_50_C4_roipool  ("))
    assert places == sorted(places)
    assert "configs/Ablations/mask_rcnn_R_50_C4_iccv_roipool.yaml" in one
    assert "with proposals of proposals_R_50_C4" in one
    assert "DATASETS.TEST \"['coco_2014_train', 'coco_2014_val" in one  # to paste into a shell
    assert "(backbone ResNet-50-C4, align no, bilinear no, agg max)" in one
    assert "weights R-50 (detectron2://ImageNetPretrained/MSRA/R-50.pkl) fetched when needed" in one


@pytest.mark.parametrize("place", ["nowhere/list.json", "."])
def test_a_place_where_no_file_can_be(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"--json {place}.*folder"):
        _list("--json", place)
    assert capsys.readouterr().out == ""


def test_no_line_ends_between_a_key_and_its_value(capsys):
    assert _list("--row", "roiwarp-max", "--data", "scenes") == 0
    text = capsys.readouterr().out
    assert "\N{NO-BREAK SPACE}" not in text
    settings = re.findall(r"^ +([A-Z]+\.[A-Z].*)$", text, re.MULTILINE)
    assert len(settings) > 30
    for line in settings:
        words = shlex.split(line)
        assert len(words) % 2 == 0, line
        assert all(re.fullmatch(r"[A-Z0-9_]+(\.[A-Z0-9_]+)+", key) for key in words[::2]), line


def test_a_row_of_another_system_needs_nothing(capsys):
    assert _list("--table", "4", "--row", "cmu-pose+++") == 0
    text = capsys.readouterr().out
    assert "CMU-Pose+++ (backbone -)" in text
    assert text.endswith("state: reference\n")


def test_several_rows(capsys):
    assert _list("--table", "2b", "--row", "sigmoid", "SOFTMAX") == 0
    text = capsys.readouterr().out
    assert re.findall(r"^Table 2b, row (\w+)", text, re.MULTILINE) == ["softmax", "sigmoid"]


def test_ours_of_test_dev_say_that_they_are_measured_on_minival(capsys):
    note = "  * test-dev has no public annotations (an evaluation server has them)"
    assert _list("--table", "1", "--row", "r101-fpn") == 0
    text = capsys.readouterr().out
    assert note in text
    assert "  ours, COCO minival: segm/AP, " in text
    assert _list("--table", "1", "--row", "mnc") == 0
    assert note not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--table", "2f"], r"no table '2f'; did you mean 2e or"),
        (["--table", "cityscapes"], r"no table 'cityscapes'; there are 1, 2a, .*, 9, in-text"),
        (["--table", "intext"], r"no table 'intext'; did you mean in-text"),
        (
            ["--table", "2c", "--row", "roialgin"],
            r"no row 'roialgin' in table 2c; did you mean roia",
        ),
        (["--row", "roialgin"], r"no row 'roialgin' in any table; did you mean roialign"),
        (
            ["--table", "2b", "2d", "--row", "mnc"],
            r"no row 'mnc' in table 2b, 2d; there are softmax",
        ),
        (["--row", "roipool", "nothere"], r"no row 'nothere' in any table"),
    ],
)
def test_unknown_names(words, message):
    with pytest.raises(UsageError, match=message):
        _list(*words)


def test_data_that_are_there(nowhere, capsys):
    _put(nowhere, "coco/train2014", "coco/val2014")
    _put(nowhere, "coco/annotations/instances_train2014.json")
    _put(nowhere, "coco/annotations/instances_val2014.json")
    _list("--table", "2c")
    text = capsys.readouterr().out
    (root, said) = re.search(r"missing\s+below\s+(\S+):\s+(.*)\n", text).groups()
    assert (root, said) == (f"{nowhere}/data/", "coco/annotations/instances_val2017.json")
    _put(nowhere, "coco/annotations/instances_val2017.json")
    _list("--table", "2c")
    text = capsys.readouterr().out
    assert "Not there" not in text
    assert re.search(r"^roipool .* 50 +not run$", text, re.MULTILINE)
    _list("--table", "2c", "--row", "roipool")
    assert "data coco (123,287 images, 19.5 GB, https://cocodataset.org) found" in (
        capsys.readouterr().out
    )


def test_detectrons_own_files_serve_too(nowhere, capsys):
    _put(nowhere, "coco/train2014", "coco/val2014")
    _put(nowhere, *(f"coco/annotations/instances_{name}.json" for name in ANNOTATIONS))
    _list("--table", "2c")
    assert "Not there" not in capsys.readouterr().out
    (nowhere / "data/coco/val2014").rmdir()
    _list("--table", "2c")
    assert "coco/val2014" in capsys.readouterr().out


def test_cityscapes_by_its_tree(nowhere, capsys):
    _put(
        nowhere,
        *(f"cityscapes/{a}/{b}" for a in ("leftImg8bit", "gtFine") for b in ("train", "val")),
    )
    _list("--table", "7", "--row", "fine")
    assert "11.5 GB, https://www.cityscapes-dataset.com) found" in capsys.readouterr().out
    (nowhere / "data/cityscapes/gtFine/val").rmdir()
    _list("--table", "7", "--row", "fine")
    text = " ".join(capsys.readouterr().out.split())
    assert f"missing below {nowhere}/data/: cityscapes/gtFine/val" in text


def test_weights_of_the_users_own(nowhere, capsys):
    words = ("--table", "8", "--row", "imagenet-5k")
    _list(*words)
    assert "weights/X-101-64x4d-IN5k.pth) missing: no public address" in capsys.readouterr().out
    (nowhere / "weights").mkdir()
    (nowhere / "weights" / "X-101-64x4d-IN5k.pth").touch()
    _list(*words)
    assert "weights/X-101-64x4d-IN5k.pth) found" in capsys.readouterr().out
    _list("--table", "8")
    assert re.search(r"^imagenet-5k .* 61  data +not run$", capsys.readouterr().out, re.MULTILINE)


def test_json(nowhere, capsys):
    assert _list("--json", nowhere / "all.json") == 0
    found = json.loads((nowhere / "all.json").read_text())
    paper = load_paper()
    assert list(found["tables"]) == list(paper.tables)
    cells = [
        (number, row["id"], column, value)
        for number, table in found["tables"].items()
        for row in table["rows"]
        for column, value in row["paper"].items()
    ]
    assert cells == [
        (number, row.id, column, value)
        for number, table in paper.tables.items()
        for row in table.rows
        for column, value in row.paper.items()
    ]
    row = next(row for row in found["tables"]["2c"]["rows"] if row["id"] == "roipool")
    assert row["stages"] == ["rpn_R_50_C4", "proposals_R_50_C4", "mask_R_50_C4_roipool"]
    assert row["hours"] == pytest.approx(8.3 + 0.5 + 41.4)
    assert row["state"] == "not run"
    assert row["runnable"] is True
    assert any(path.endswith("val2014") for path in row["missing"]["data"]["coco"])
    assert found["stages"]["rpn_R_50_C4"]["config"] == "COCO-Detection/rpn_R_50_C4_iccv.yaml"
    assert found["weights"]["R-50"]["address"].startswith("detectron2://")
    mnc = found["tables"]["1"]["rows"][0]
    assert (mnc["reference"], mnc["runnable"], mnc["stages"]) == (True, False, [])
    assert len(found["in_text"]) == len(paper.comparisons)


def test_json_of_a_choice(nowhere, capsys):
    _list("--table", "2b", "--row", "sigmoid", "--json", nowhere / "one.json")
    found = json.loads((nowhere / "one.json").read_text())
    assert [row["id"] for row in found["tables"]["2b"]["rows"]] == ["sigmoid"]
    assert list(found["tables"]) == ["2b"]
    assert found["in_text"] == []
    assert list(found["stages"]) == ["rpn_R_50_C4", "proposals_R_50_C4", "mask_R_50_C4"]


def test_generated_scenes(nowhere, monkeypatch, capsys):
    folder = Path(shutil.copytree(configs_dir() / "paper", nowhere / "paper"))
    (folder / "scenes.yaml").write_text(SCENES)
    monkeypatch.setattr("mask_rcnn_ext.tools.tables.listing.load_paper", lambda: load_paper(folder))
    _list("--table", "2b", "in-text", "--data", "scenes", "--json", nowhere / "s.json")
    text = capsys.readouterr().out
    assert "hours on 2 CPU cores with" in text
    assert re.search(r"^softmax .* 25\.1 +no recipe$", text, re.MULTILINE)
    # Generated data never miss.
    assert re.search(r"^sigmoid .* 31\.5 +0\.1 +not run$", text, re.MULTILINE)
    assert "Not there" not in text
    # A comparison needs a recipe for each of its stages.
    assert "a softmax over the classes; no recipe" in " ".join(text.split())
    found = json.loads((nowhere / "s.json").read_text())
    assert found["scale"] == "scenes"
    assert list(found["stages"]) == ["small_C4"]
    _list("--table", "2b", "--row", "sigmoid", "--data", "scenes")
    line = "data made (2,000 images, 0.1 GB, mask-rcnn-ext) generated when needed"
    assert line in capsys.readouterr().out


# ---- states

READ = {
    "coco_2014_train": "0123456789abcdef",
    "coco_2014_valminusminival": "1123456789abcdef",
    "coco_2014_minival": "2123456789abcdef",
}


@pytest.fixture
def paper(monkeypatch) -> Paper:
    """Read once, and a version of the code that takes no time to hash."""
    monkeypatch.setattr("mask_rcnn_ext.tools.tables.kept.code_hash", lambda: "today")
    return load_paper()


def _record(paper: Paper, records: Path, stage: str, seed: int = 1, **changed: object) -> Path:
    """One of a run that has been done with today's code, or as `changed` says."""
    keys = Keys(paper, code="today", fingerprint=READ.__getitem__)
    one = paper.stages[stage]
    record = Record(
        format=1,
        scale=one.scale,
        smoke=False,
        stage=stage,
        kind=one.kind,
        seed=seed,
        key=keys.key_of(stage, seed),
        code="today",
        state="finished",
        config=one.config,
        overrides=one.words,
        results={},
        hours=1.0,
        device="cpu",
        machine="m",
        commit=None,
        versions={},
        datasets=READ,
        started="2026-01-01",
    )
    folder = record_folder(records, one.scale, stage, seed)
    write_record(folder, msgspec.structs.replace(record, **changed))
    return folder


def _states(text: str) -> dict[str, str]:
    """Row -> state, of lines that end in one."""
    found = re.findall(r"^([a-z-]+) .* (?:data|both)  +(\S.*)$", text, re.MULTILINE)
    return dict(found)


def test_rows_with_records_say_with_how_many_seeds(nowhere, paper, capsys):
    for seed in (1, 2):
        _record(paper, nowhere / "kept", "mask_R_50_C4", seed)
    _record(paper, nowhere / "kept", "mask_R_50_C4_softmax", state="failed", reason="no memory")
    words = (
        "--table",
        "2b",
        "in-text",
        "--records",
        nowhere / "kept",
        "--json",
        nowhere / "r.json",
    )
    assert _list(*words) == 0
    text, said = capsys.readouterr()
    assert _states(text) == {"sigmoid": "2 seeds", "softmax": "failed"}
    assert "1 of 4 stages" in text  # class_specific_vs_agnostic
    assert "stale" not in text
    assert said == ""
    rows = json.loads((nowhere / "r.json").read_text())["tables"]["2b"]["rows"]
    states = {row["id"]: (row["state"], row["seeds"]) for row in rows}
    assert states == {"softmax": ("failed", []), "sigmoid": ("2 seeds", [1, 2])}


def test_records_that_do_not_count_are_said_to_be_there(nowhere, paper, capsys):
    _record(paper, nowhere / "kept", "mask_R_50_C4", code="yesterday")
    _record(paper, nowhere / "kept", "mask_R_50_C4_softmax", key="x" * 64)
    _list("--table", "2b", "--records", nowhere / "kept")
    text = capsys.readouterr().out
    assert _states(text) == {"sigmoid": "stale", "softmax": "other config"}
    legend = " ".join(text.split("\n\n")[0].split())
    assert "stale: measured by another version of the code." in legend
    assert "other config: measured with another config or other data." in legend


def test_a_row_says_which_seed_of_which_stage(nowhere, paper, capsys):
    _record(paper, nowhere / "kept", "rpn_R_50_C4")
    _record(paper, nowhere / "kept", "mask_R_50_C4", 2, state="failed", reason="no memory")
    _list("--table", "2b", "--row", "sigmoid", "--records", nowhere / "kept")
    text = capsys.readouterr().out
    assert "state: failed; 50 hours, in this order:" in text
    first, second, third = (
        text.index(f"  {name}  (") for name in ("rpn_R_50_C4", "proposals_R_50_C4", "mask_R_50_C4")
    )
    assert first < text.index("    seed 1: finished") < second
    assert third < text.index("    seed 2: failed: no memory")


def test_a_record_that_is_not_whole_is_ignored_with_a_line(nowhere, paper, capsys):
    folder = _record(paper, nowhere / "kept", "mask_R_50_C4")
    _record(paper, nowhere / "kept", "mask_R_50_C4_softmax")
    (folder / "record.json").write_bytes((folder / "record.json").read_bytes()[:100])
    assert _list("--table", "2b", "--records", nowhere / "kept") == 0
    text, said = capsys.readouterr()
    assert _states(text) == {"sigmoid": "not run", "softmax": "1 seed"}
    assert said.startswith(f"mask-rcnn-ext tables: ignored: {folder}/record.json is not a whole")
    assert said.count("\n") == 1


def test_records_are_looked_for_where_runs_leave_them(nowhere, paper, capsys):
    _record(paper, nowhere / "output" / "tables" / "records", "mask_R_50_C4")
    _list("--table", "2b")
    assert _states(capsys.readouterr().out)["sigmoid"] == "1 seed"
    with pytest.raises(UsageError, match="--records nowhere is not a folder"):
        _list("--table", "2b", "--records", "nowhere")


def test_records_of_scenes_are_not_those_of_coco(nowhere, paper, capsys):
    folder = _record(paper, nowhere / "kept", "mask_R_50_C4")
    folder.parents[1].rename(nowhere / "kept" / "scenes")
    _list("--table", "2b", "--records", nowhere / "kept")
    assert _states(capsys.readouterr().out)["sigmoid"] == "not run"


def test_data_that_have_changed_since(nowhere, paper, capsys):
    """Where there are annotations, they count, not what the records say."""
    _record(paper, nowhere / "kept", "mask_R_50_C4")
    _put(nowhere, "coco/train2014", "coco/val2014")
    _put(nowhere, *(f"coco/annotations/instances_{name}.json" for name in ANNOTATIONS))
    _list("--table", "2b", "--records", nowhere / "kept")
    assert re.search(r"^sigmoid .* other config$", capsys.readouterr().out, re.MULTILINE)


def test_fingerprints_are_those_of_run_json(nowhere):
    _put(nowhere, "coco/train2014", "coco/annotations/instances_train2014.json")
    (nowhere / "data/coco/annotations/instances_train2014.json").write_bytes(b"{}")
    fingerprint = fingerprints({"coco_2014_train": "x", "coco_2014_minival": "y"})
    digest = hashlib.sha256(b"{}").hexdigest()
    assert fingerprint("coco_2014_train") == digest[:16]
    assert fingerprint("coco_2014_minival") == "y"
    with pytest.raises(NoFingerprint, match="'coco_2014_valminusminival' is not there"):
        fingerprint("coco_2014_valminusminival")
    assert fingerprints({"coco_2014_train": "x"}, look=False)("coco_2014_train") == "x"


def test_help_has_no_holes(capsys):
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["list", "--help"])
    assert caught.value.code == 0
    assert "tables list --table 2c --row roipool" in capsys.readouterr().out

"""The stages of configs/paper/: each loads as a config, and is what its row and its neighbours say.

What makes a config the row that it is tests/configs/test_paper_rows.py checks.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.registration.catalog import entry_of
from mask_rcnn_ext.paper import Row, Stage, Table, load_paper

PAPER = load_paper()
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COCO = [stage for stage in PAPER.stages.values() if stage.scale == "coco"]
ROWS = [(table, row) for table in PAPER.tables.values() for row in table.rows if row.stage]
each_stage = pytest.mark.parametrize("stage", COCO, ids=lambda stage: stage.id)
each_row = pytest.mark.parametrize(
    ("table", "row"), ROWS, ids=[f"{table.table}-{row.id}" for table, row in ROWS]
)
_TRAINS = ("train", "distill")  # reads DATASETS.TRAIN


@functools.cache
def _load(config: str, *words: str) -> CfgNode:
    return load_config(CONFIGS / config, words)


def _config(stage: Stage) -> CfgNode:
    return _load(stage.config, *stage.words)


def _stage_of(row: Row) -> Stage:
    assert row.stage is not None
    return PAPER.stages[row.stage]


# ---- stages


@each_stage
def test_the_config_loads_with_its_overrides_and_they_change_it(stage):
    cfg, plain = _config(stage), _load(stage.config)
    for key, value in stage.overrides.items():
        here, before = cfg, plain
        for part in key.split("."):
            here, before = here[part], before[part]
        as_list = list(here) if isinstance(here, tuple) else here
        assert as_list == value, key
        if stage.kind != "proposals":  # which share their RPN's overrides
            assert here != before, f"{key} {value} is what the config has"


@each_stage
def test_hours_are_iterations_times_seconds(stage):
    found = re.match(r"([\d.]+) s x (?:(\d+)k|(\d+) images / 8)", stage.hours_from)
    if found is None:
        assert stage.hours_from in ("the paper's own", "a few minutes on one GPU")
        return
    seconds, thousands, images = found.groups()
    if thousands:
        assert stage.kind == "train"
        assert int(thousands) * 1000 == _config(stage).SOLVER.MAX_ITER
        hours = float(seconds) * int(thousands) / 3.6
    else:
        assert stage.kind != "train"
        known = {PAPER.data[name].images for name in stage.data} | {5000}
        assert int(images) in known
        hours = float(seconds) * int(images) / 8 / 3600
    assert stage.hours == pytest.approx(hours, rel=0.02, abs=0.06)


@each_stage
def test_the_data_are_those_of_the_config(stage):
    cfg = _config(stage)
    if stage.kind == "time":
        assert not stage.data
        return
    sets = {name for data in stage.data for name in PAPER.data[data].sets}
    read = {*cfg.DATASETS.TEST, *(cfg.DATASETS.TRAIN if stage.kind in _TRAINS else ())}
    if stage.labels:
        read |= {*_config(PAPER.stages[stage.labels]).DATASETS.TEST}
    assert read <= sets
    for name in stage.data:
        assert read & {*PAPER.data[name].sets}, f"{name} is not read"


def test_the_sets_are_registered():
    for data in PAPER.data.values():
        for name in data.sets:
            assert entry_of(name) is not None, name


@each_stage
def test_the_weights_are_those_of_the_config(stage):
    weights = _config(stage).MODEL.WEIGHTS
    if stage.weights is not None:
        assert weights == PAPER.weights[stage.weights].address
    elif stage.kind == "time":
        assert weights == ""
    else:
        assert stage.model is not None, "starts from nothing"


@each_stage
def test_proposals_come_from_a_stage_that_dumps_them(stage):
    cfg = _config(stage)
    assert (stage.proposals is not None) == cfg.MODEL.LOAD_PROPOSALS
    if stage.proposals is not None:
        dump = PAPER.stages[stage.proposals]
        assert (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) == tuple(_config(dump).DATASETS.TEST)
        rpn, own = _config(dump).MODEL, cfg.MODEL
        assert rpn.META_ARCHITECTURE == "ProposalNetwork"
        for key in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP"):
            assert rpn.RESNETS[key] == own.RESNETS[key]
        assert rpn.BACKBONE.NAME == own.BACKBONE.NAME
        assert rpn.ROI_HEADS.NUM_CLASSES == own.ROI_HEADS.NUM_CLASSES
        # The files that the config names for those who run it by hand.
        if "cityscapes" not in stage.id:
            folder = f"output/{Path(dump.config).stem}/proposals/"
            files = (*cfg.DATASETS.PROPOSAL_FILES_TRAIN, *cfg.DATASETS.PROPOSAL_FILES_TEST)
            assert all(file.startswith(folder) for file in files), files


@each_stage
def test_a_model_is_run_with_the_config_that_trained_it(stage):
    if stage.model is None or stage.kind == "train":
        return
    trained = PAPER.stages[stage.model]
    assert stage.config == trained.config
    assert _config(stage).MODEL == _config(trained).MODEL


def test_fine_tuning_from_coco_starts_from_table_2as_model():
    stage = PAPER.stages["mask_cityscapes_from_coco"]
    assert stage.model == next(r.stage for r in PAPER.tables["2a"].rows if r.id == "r50-fpn")
    assert _config(stage).MODEL.CLASS_TRANSFER == "by_name"
    alone = PAPER.stages["mask_cityscapes"]
    schedules = [
        (c.SOLVER.MAX_ITER, c.SOLVER.STEPS, c.SOLVER.BASE_LR, c.SOLVER.IMS_PER_BATCH)
        for c in map(_config, (alone, stage))
    ]
    assert schedules == [(24000, (18000,), 0.01, 8), (4000, (3000,), 0.01, 8)]
    for cfg in map(_config, (alone, stage)):
        assert cfg.INPUT.MIN_SIZE_TRAIN == (800, 1024)
        assert cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range"
        assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (1024, 2048)


@pytest.mark.parametrize(
    ("name", "by_a_key"),
    [
        ("mask_X_152_FPN_nonlocal_views", True),
        ("keypoint_X_101_FPN_distilled_views", True),
        ("distill_keypoints", False),  # always
    ],
)
def test_views_are_those_of_appendix_b(name, by_a_key):
    augmented = _config(PAPER.stages[name]).TEST.AUG
    assert by_a_key == augmented.ENABLED
    assert augmented.FLIP
    assert tuple(augmented.MIN_SIZES) == tuple(range(400, 1201, 100))


def test_the_student_differs_from_its_teacher_in_the_labels_alone():
    student = PAPER.stages["keypoint_X_101_FPN_distilled"]
    labels = PAPER.stages[student.labels]
    teacher = PAPER.stages[labels.model]
    assert _config(student) == _config(teacher)
    assert student.labels is not None
    assert teacher.labels is None
    cfg = _config(labels)
    assert cfg.DATASETS.TRAIN == _config(teacher).DATASETS.TRAIN  # whose average count is matched
    assert cfg.DATASETS.TEST == ("coco_2017_unlabeled",)


def test_nothing_is_written_that_no_row_uses():
    used = [row.stage for _, row in ROWS]
    used += [name for one in PAPER.comparisons.values() for name in one.stages]
    used += [small.id for name in used if (small := PAPER.at("scenes", name)) is not None]
    chain = PAPER.chain(*used)
    assert {stage.id for stage in chain} == set(PAPER.stages)
    assert {stage.weights for stage in chain if stage.weights} == set(PAPER.weights)
    assert {name for stage in chain for name in stage.data} == set(PAPER.data)
    notes = {note for stage in chain for note in stage.footnotes}
    for one in (*PAPER.tables.values(), *PAPER.comparisons.values()):
        notes |= {*one.footnotes}
    assert notes == set(PAPER.footnotes)


# ---- rows


@each_row
def test_the_stage_has_the_backbone_of_the_row(table, row):
    found = re.fullmatch(r"(R|ResNet|X|ResNeXt)-(\d+)-(C4|C5|FPN)(-NL)?", row.facts["backbone"])
    assert found
    cfg = _config(_stage_of(row))
    assert int(found[2]) == cfg.MODEL.RESNETS.DEPTH
    assert found[1].startswith(("X", "ResNeX")) == (cfg.MODEL.RESNETS.NUM_GROUPS > 1)
    assert ("fpn" in cfg.MODEL.BACKBONE.NAME) == (found[3] == "FPN")
    assert ("nonlocal" in cfg.MODEL.BACKBONE.NAME) == bool(found[4])
    if found[3] != "FPN":
        assert f"res{found[3][1]}" == cfg.MODEL.RESNETS.OUT_FEATURES[0]


@each_row
def test_the_stage_gives_the_figures_of_the_row(table: Table, row: Row):
    cfg = _config(_stage_of(row))
    tasks = {"bbox"}
    tasks |= {"segm"} if cfg.MODEL.MASK_ON else set()
    tasks |= {"keypoints"} if cfg.MODEL.KEYPOINT_ON else set()
    tasks |= {"cityscapes"} if "cityscapes_fine_val" in cfg.DATASETS.TEST else set()
    for name, column in table.columns.items():
        given = column.key.split("/")[0] in tasks
        assert given == (row.paper[name] is not None), name
    split = table.measured_on or table.split
    assert all(name.endswith(split) for name in cfg.DATASETS.TEST)
    if table.table == "5":  # AP is that of persons where they are the only class
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1


@each_row
def test_the_config_says_which_row_it_is(table, row):
    stage = _stage_of(row)
    head = (CONFIGS / stage.config).read_text().partition("_BASE_")[0]
    text = " ".join(line.lstrip("# ") for line in head.splitlines())
    if table.table == "7":
        return  # made by overrides
    if table.table == "9" and row.id in ("distillation", "test-augm"):
        assert "table 9" in text
        return
    figures = [value for name, value in row.paper.items() if re.search("AP(_person)?$", name)]
    assert figures
    for value in figures:
        if value is not None:
            assert re.search(rf"AP {value}\b[^;]*?table {table.table}, row", text), (value, text)


@pytest.mark.parametrize("name", ["1", "3", "4"])
def test_rows_of_test_dev_are_measured_on_minival_and_say_so(name):
    table = PAPER.tables[name]
    assert (table.split, table.measured_on) == ("test-dev", "minival")
    assert "test_dev" in table.footnotes


@each_row
def test_what_runs_is_in_the_order_in_which_it_can(table, row):
    done: set[str] = set()
    for stage in PAPER.chain(row.stage):
        assert set(stage.needs) <= done
        done.add(stage.id)


def test_rows_share_stages():
    stages = {(table.table, row.id): row.stage for table, row in ROWS}
    assert stages["2b", "sigmoid"] == stages["2c", "roialign-ave"] == stages["2a", "r50-c4"]
    assert stages["2e", "fcn"] == stages["2a", "r50-fpn"]
    assert stages["8", "baseline"] == stages["1", "x101-fpn"]
    assert stages["9", "baseline"] == stages["6", "roialign"] == stages["4", "keypoint"]

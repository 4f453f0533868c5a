"""Files of configs/paper/ that are wrong, each told with its file and row; stages for scenes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.paper import load_paper
from mask_rcnn_ext.resources import configs_dir

SCENES = """
hardware: 2 CPU cores
data:
  scenes:
    sets: [scenes_train, scenes_val]
    images: 2000
    gigabytes: 0.1
    address: mask-rcnn-ext
    make:
    - {folder: scenes, images: 1800, val_images: 200, size: "128", seed: 1}
    - {folder: streets, layout: cityscapes, images: 4, val_images: 2, size: 64x128, seed: 2}
footnotes: {small: a quarter of the width}
common: {rpn: &rpn {kind: train, footnotes: [small], seeds: one}}
stages:
  small_rpn:
    {<<: *rpn, config: scenes/Base-Scenes-FPN.yaml, data: [scenes], hours: 0.05,
     hours_from: measured}
  small_dump:
    {kind: proposals, config: scenes/Base-Scenes-FPN.yaml, model: small_rpn, data: [scenes],
     seeds: one, hours: 0.01, hours_from: measured}
  small_C4:
    kind: train
    config: scenes/Base-Scenes-FPN.yaml
    proposals: small_dump
    stands_for: [mask_R_50_C4, mask_R_50_C4_agnostic]
    data: [scenes]
    hours: 0.1
    hours_from: measured
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(configs_dir() / "paper", tmp_path / "paper"))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("table_2b.yaml", "AP: 24.8", "AP: 248", r"row softmax: .*<= 100.0.*`paper"),
        ("table_2b.yaml", "AP: 24.8", "AP: .nan", r"row softmax: .*>= 0.0 - at `paper"),
        ("table_2b.yaml", "AP: 24.8", "AP: high", r"row softmax: Expected `float \| null`, got"),
        ("table_2b.yaml", "AP: 24.8, ", "", r"row softmax: figures AP50, AP75, expected AP, AP50"),
        ("table_2b.yaml", "AP: segm/AP,", "AP: segm,", r"table_2b.yaml: .*columns"),
        ("table_2b.yaml", "table: 2b", "table: 2c", r"table_2b.yaml: table is '2c'"),
        ("table_2b.yaml", "id: sigmoid", "id: softmax", r"row softmax comes twice"),
        ("table_2b.yaml", "  stage: mask_R_50_C4\n", "", r"row sigmoid: expected a stage, or ref"),
        ("table_1.yaml", "reference: true", "reference: false", r"row mnc: expected a stage, or"),
        ("table_2b.yaml", "  name: soft", "  nam: x\n  name: soft", r"row softmax: .*field `nam`"),
        (
            "table_2b.yaml",
            "C4_softmax",
            "C4_softmix",
            r"row softmax: stage: unknown 'mask_R_50_C4_s",
        ),
        ("table_2b.yaml", "mask_R_50_C4_softmax", "rpn_R_50_C4x", r"did you mean"),
        (
            "table_2b.yaml",
            "stage: mask_R_50_C4_soft",
            "stage: proposals_R_50_C4 #",
            "row softmax: st",
        ),
        (
            "table_2b.yaml",
            "row: sigmoid",
            "row: sigmo",
            r"printed_delta: unknown 'sigmo'; .*sigmoid",
        ),
        ("table_2b.yaml", "AP75: 6.4", "AP76: 6.4", r"printed_delta: unknown 'AP76'"),
        ("table_1.yaml", "[test_dev]", "[testdev]", r"table_1.yaml: footnotes: unknown 'testdev'"),
        ("table_2b.yaml", "rows:", "rows: none #", r"table_2b.yaml"),
        ("table_2b.yaml", "title:", "table: 2b\ntitle:", r"line 3: 'table' comes twice"),
        (
            "table_2b.yaml",
            "title: ",
            "title: !!python/name:os.system ",
            r"cannot be read.*constructor",
        ),
        (
            "stages.yaml",
            "\nstages:\n",
            "\nstages:\n  rpn_R_50_C4: {}\n",
            r"'rpn_R_50_C4' comes twice",
        ),
        ("stages.yaml", "rpn: &rpn {", "rpn: &rpn {kind: train, ", r"line \d+: 'kind' comes twice"),
        (
            "stages.yaml",
            "model: rpn_R_50_C4,",
            "model: rpn_R_50_C5x,",
            r"stage proposals_R_50_C4: model",
        ),
        (
            "stages.yaml",
            "model: rpn_R_50_C4,",
            "",
            r"stage proposals_R_50_C4: kind proposals needs a mo",
        ),
        (
            "stages.yaml",
            "model: rpn_R_50_C4,",
            "model: proposals_R_50_C5,",
            r"of kind proposals, exp",
        ),
        (
            "stages.yaml",
            "yaml, weights: R-50,",
            "yaml, model: mask_R_50_C4,",
            r"needs itself, by way",
        ),
        ("stages.yaml", "yaml, weights: R-50,", "yaml, weights: R-51,", r"weights: unknown 'R-51'"),
        (
            "stages.yaml",
            "data: [coco], foot",
            "data: [koko], foot",
            r"rpn_R_50_C4: data: unknown 'koko'",
        ),
        ("stages.yaml", "[rpn_schedule, w", "[rpn_schedul, w", r"rpn_R_50_C4: footnotes: unknown"),
        ("stages.yaml", "hours: 8.3,", "hours: 0,", r"stages: rpn_R_50_C4: .*> 0"),
        (
            "stages.yaml",
            "rpn: &rpn {kind: train",
            "rpn: &rpn {kind: tain",
            r"rpn_R_50_C4: Invalid enum",
        ),
        ("stages.yaml", "hardware: 8 GPUs", "hardwar: 8", r"keys: unknown 'hardwar'; .*hardware"),
        ("stages.yaml", "hardware: 8 GPUs", "", r"stages: rpn_R_50_C4: .*hardware"),
        (
            "in_text.yaml",
            "minus: mask_R_50_C4_s",
            "minus: mask_R_50_C4_x",
            r"mask_AP_gain: unknown",
        ),
        ("in_text.yaml", "key: segm/AP}", "kei: segm/AP}", r"class_specific_vs_agnostic: .*`kei`"),
        ("in_text.yaml", ", key: segm/AP}", "}", r"class_specific: of and key go together"),
        (
            "in_text.yaml",
            "of: mask_R_50_C4,",
            "of: time_mask_R_101_C4,",
            r"class_specific: unknown",
        ),
        ("in_text.yaml", "key: segm/AP}", "key: segm/AP, minus_key: a/b}", r"minus_key without"),
        ("in_text.yaml", "percent_over:", "minus: time_mask_R_101_C4, percent_over:", r"not both"),
        ("in_text.yaml", "[timing]", "[time]", r"mask_overhead: footnotes: unknown 'time'"),
    ],
)
def test_a_wrong_file_is_named_with_its_row(folder, file, old, new, message):
    _edit(folder / file, old, new)
    with pytest.raises(UsageError, match=message) as caught:
        load_paper(folder)
    assert str(folder / file) in str(caught.value)


def test_a_missing_file_is_named(folder):
    (folder / "in_text.yaml").unlink()
    with pytest.raises(UsageError, match=r"in_text.yaml cannot be read: No such file"):
        load_paper(folder)
    for path in folder.glob("table_*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"has no table_\*.yaml"):
        load_paper(folder)


def test_nothing_can_be_changed():
    paper = load_paper()
    with pytest.raises(AttributeError):
        paper.tables["1"].title = "x"
    with pytest.raises(AttributeError):
        paper.tables["1"].rows[0].stage = "x"


@pytest.mark.parametrize("name", ["2c", "2C", "table 2c", "Table_2c", "table_2C"])
def test_a_table_by_its_name(name):
    assert load_paper().table(name).table == "2c"


def test_figures_with_test_time_augmentation_have_names_of_their_own():
    stages = load_paper().stages
    for name in ("mask_X_152_FPN_nonlocal_views", "keypoint_X_101_FPN_distilled_views"):
        assert stages[name].key_of("segm/AP50") == "segm_TTA/AP50"
    for name in ("mask_X_152_FPN_nonlocal", "distill_keypoints"):
        assert stages[name].key_of("segm/AP50") == "segm/AP50"


def test_overrides_as_words():
    words = load_paper().stages["distill_keypoints"].words
    assert words[:4] == [
        "MODEL.LOAD_PROPOSALS",
        "False",
        "MODEL.PROPOSAL_GENERATOR.NAME",
        "MaskRCNNRPN",
    ]
    assert words[-2:] == ["DATASETS.TEST", "['coco_2017_unlabeled']"]


# ---- generated scenes


def test_without_scenes_there_is_no_recipe(folder):
    (folder / "scenes.yaml").unlink(missing_ok=True)
    paper = load_paper(folder)
    assert all(stage.scale == "coco" for stage in paper.stages.values())
    assert paper.at("scenes", "mask_R_50_C4") is None
    assert paper.at("coco", "mask_R_50_C4").id == "mask_R_50_C4"


def test_a_stage_on_scenes_stands_for_one_of_the_papers(folder):
    (folder / "scenes.yaml").write_text(SCENES)
    paper = load_paper(folder)
    small = paper.at("scenes", "mask_R_50_C4")
    assert (small.id, small.scale, small.hardware) == ("small_C4", "scenes", "2 CPU cores")
    assert paper.at("scenes", "mask_R_50_C4_agnostic") is small
    assert paper.at("scenes", "mask_R_101_C4") is None
    assert [stage.id for stage in paper.chain("small_C4")] == [
        "small_rpn",
        "small_dump",
        "small_C4",
    ]


def test_generated_data_and_their_seeds(folder):
    (folder / "scenes.yaml").write_text(SCENES)
    paper = load_paper(folder)
    scenes, streets = paper.data["scenes"].make
    words = "--layout coco --images 1800 --val-images 200 --size 128 --seed 1"
    assert (scenes.folder, " ".join(scenes.words)) == ("scenes", words)
    words = "--layout cityscapes --images 4 --val-images 2 --size 64x128 --seed 2"
    assert (streets.folder, " ".join(streets.words)) == ("streets", words)
    assert not paper.data["coco"].make
    assert [paper.stages["small_rpn"].seed_for(seed) for seed in (0, 1, 2)] == [1, 1, 1]
    assert [paper.stages["small_C4"].seed_for(seed) for seed in (0, 1, 2)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stands_for: [mask_R_50_C4,", "stands_for: [mask_R_50_C44,", "stands_for: unknown"),
        ("proposals: small_dump", "proposals: proposals_R_50_C4", "small_C4: proposals: unknown"),
        (
            "model: small_rpn",
            "model: small_rpn, stands_for: [mask_R_50_C4]",
            "stands for mask_R_50_C4 a",
        ),
        ("small_dump:", "mask_R_50_C5:", "mask_R_50_C5: another file has this name, too"),
        ("kind: train\n", "kind: train\n    id: x\n", "small_C4: unknown 'id'"),
        ("stages:\n", "stages:\n  other: 3\n", "stages: other: Expected `object`"),
        ("layout: cityscapes", "layout: city", r"data: scenes: Invalid enum.*`make\[1\]\.la"),
        ("images: 1800", "images: 0", r"data: scenes: .*>= 1 - at `make"),
        ('"128"', "128", r"data: scenes: Expected `str`, got `int` - at `make.*size"),
        ('"128"', "128by2", r"data: scenes: .*regex.*size"),
        ("images: 1800, ", "", r"data: scenes: .*missing required field `images`"),
        ("folder: streets", "folder: scenes", r"data: scenes: make: a folder comes twice"),
        ("model: small_rpn, data: [sc", "model: small_rpn, data: [coco, sc", r"reads no others"),
        ("seeds: one, hours", "seeds: 1, hours", r"small_dump: .*seeds"),
        ("seeds: one}}", "seeds: each}}", r"small_dump: seeds is one, but it needs small_rpn, wh"),
    ],
)
def test_wrong_stages_on_scenes(folder, old, new, message):
    (folder / "scenes.yaml").write_text(SCENES)
    _edit(folder / "scenes.yaml", old, new)
    with pytest.raises(UsageError, match=message) as caught:
        load_paper(folder)
    assert "scenes.yaml" in str(caught.value)


def test_stages_of_the_paper_stand_for_nothing(folder):
    _edit(
        folder / "stages.yaml",
        "  rpn_R_50_C4:\n    {",
        "  rpn_R_50_C4:\n    {stands_for: [rpn_R_50_C5], ",
    )
    with pytest.raises(UsageError, match="rpn_R_50_C4: stands_for is for stages on generated data"):
        load_paper(folder)

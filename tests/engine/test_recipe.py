"""Schedules for another batch: known rows, what is named stays, and what the files are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.recipe import check_recipe_keys, check_shares, derive_recipe
from mask_rcnn_ext.errors import UsageError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ONE_X = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
ICCV = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_iccv.yaml"
QUICKSTART = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


def _derive(config, *opts):
    words = [str(word) for word in opts]
    cfg = load_config(config, words)
    return cfg, derive_recipe(cfg, set(words[0::2]), config)


def _here(derivation) -> dict:
    return {row.key: row.here for row in derivation.rows}


@pytest.mark.parametrize(
    ("config", "batch", "rate", "total", "steps", "warm_up", "saving"),
    [
        # the first is of Detectron's own GETTING_STARTED for one GPU, 3x that of Detectron2's zoo
        (ONE_X, 2, 0.0025, 720_000, (480_000, 640_000), 8000, 40_000),
        (ONE_X, 8, 0.01, 180_000, (120_000, 160_000), 2000, 10_000),
        (ONE_X, 32, 0.04, 45_000, (30_000, 40_000), 1000, 2500),
        (ONE_X.replace("1x", "3x"), 8, 0.01, 540_000, (420_000, 500_000), 2000, 10_000),
        (ICCV, 8, 0.01, 320_000, (240_000,), 2000, 10_000),
        (
            "COCO-Detection/rpn_R_50_C4_iccv.yaml",
            1,
            0.00125,
            2_560_000,
            (1_920_000,),
            16_000,
            80_000,
        ),
        ("Ablations/mask_rcnn_R_50_C5_iccv.yaml", 6, 0.0075, 426_667, (320_000,), 2667, 13_333),
    ],
)
def test_known_rows(config, batch, rate, total, steps, warm_up, saving):
    cfg, derivation = _derive(config, "SOLVER.IMS_PER_BATCH", batch)
    assert _here(derivation) == {
        "SOLVER.BASE_LR": rate,
        "SOLVER.MAX_ITER": total,
        "SOLVER.STEPS": steps,
        "SOLVER.WARMUP_ITERS": warm_up,
        "SOLVER.CHECKPOINT_PERIOD": saving,
    }
    assert total != cfg.SOLVER.MAX_ITER, "deriving changes nothing by itself"


def test_as_many_images_are_seen_whatever_the_batch():
    for batch in (1, 2, 4, 8, 32, 64):
        cfg, derivation = _derive(ICCV, "SOLVER.IMS_PER_BATCH", batch)
        assert _here(derivation)["SOLVER.MAX_ITER"] * batch == cfg.SOLVER.MAX_ITER * 16


def test_applied_the_config_is_not_derived_again(tmp_path):
    cfg, derivation = _derive(ONE_X, "SOLVER.IMS_PER_BATCH", 2, "TEST.EVAL_PERIOD", 5000)
    cfg.defrost()
    derivation.apply(cfg)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS) == (0.0025, (480_000, 640_000))
    assert cfg.TEST.EVAL_PERIOD == 5000
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again, second = _derive(tmp_path / "config.yaml")
    assert again.SOLVER.BASE_LR == 0.0025
    assert second.rows == ()


def test_a_config_that_its_own_batch_is_written_for_is_saved_with_that_batch(tmp_path):
    """ResNeXt's has 8 images and a rate for 8 over a base for 16; saved, it is one file."""
    config = "COCO-InstanceSegmentation/mask_rcnn_X_101_64x4d_FPN_iccv.yaml"
    cfg, derivation = _derive(config)
    assert (derivation.reference, derivation.batch, derivation.rows) == (8, 8, ())
    cfg.defrost()
    derivation.apply(cfg)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert _derive(tmp_path / "config.yaml")[1].rows == ()


@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "paper"),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_config_is_written_for_its_own_batch(path):
    assert derive_recipe(load_config(path), set(), path).rows == ()


def test_what_the_command_line_names_stays():
    words = ["SOLVER.BASE_LR", 0.02, "SOLVER.MAX_ITER", 100, "TEST.EVAL_PERIOD", 50]
    _, derivation = _derive(ONE_X, "SOLVER.IMS_PER_BATCH", 2, *words)
    rows = {row.key: row for row in derivation.rows}
    for key, value in zip(words[0::2], words[1::2], strict=True):
        assert rows[key].here == value
        assert rows[key].why == "named on the command line"
    assert rows["SOLVER.STEPS"].here == (480_000, 640_000)
    assert rows["SOLVER.WARMUP_ITERS"].here == 8000


def test_evaluations_come_after_as_many_images_or_never(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {CONFIGS / 'Base-RCNN-FPN.yaml'}\nTEST: {{EVAL_PERIOD: 5000}}\n"
    )
    config = tmp_path / "mine.yaml"
    _, derivation = _derive(config, "SOLVER.IMS_PER_BATCH", 4)
    assert _here(derivation)["TEST.EVAL_PERIOD"] == 20_000
    assert "TEST.EVAL_PERIOD" not in _here(_derive(ONE_X, "SOLVER.IMS_PER_BATCH", 4)[1])


@pytest.mark.parametrize(
    ("solver", "reference"),
    [
        ("IMS_PER_BATCH: 2", 16),  # nothing else: the base's schedule is for 16
        ("{IMS_PER_BATCH: 2, BASE_LR: 0.0025}", 2),  # as Detectron2's users write it
        ("{IMS_PER_BATCH: 2, MAX_ITER: 7000}", 2),
        ("{IMS_PER_BATCH: 2, STEPS: [70, 90]}", 2),
        ("{IMS_PER_BATCH: 2, BASE_LR: 0.0025, REFERENCE_BATCH: 4}", 4),
        ("{MAX_ITER: 7000}", 16),
        ("{REFERENCE_BATCH: 0}", 0),
    ],
)
def test_a_file_with_batch_and_schedule_is_for_that_batch(tmp_path, solver, reference):
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text(f"_BASE_: {CONFIGS / ONE_X}\n")
    section = solver if solver.startswith("{") else f"{{{solver}}}"
    mine.write_text(f"_BASE_: [base.yaml]\nSOLVER: {section}\n")
    _, derivation = _derive(mine, "SOLVER.IMS_PER_BATCH", 32)
    assert derivation.reference == reference
    assert bool(derivation.rows) == bool(reference)


def test_the_command_line_may_say_what_the_file_is_for():
    _, derivation = _derive(QUICKSTART, "SOLVER.IMS_PER_BATCH", 8, "SOLVER.REFERENCE_BATCH", 2)
    assert _here(derivation)["SOLVER.MAX_ITER"] == 400
    _, derivation = _derive(QUICKSTART, "SOLVER.IMS_PER_BATCH", 8, "SOLVER.REFERENCE_BATCH", 0)
    assert derivation.rows == ()
    assert str(derivation) == ""


def test_adamw_takes_the_square_root_and_a_cosine_has_no_steps():
    _, derivation = _derive(QUICKSTART, "SOLVER.IMS_PER_BATCH", 1)
    assert derivation.reference == 4
    assert _here(derivation) == {
        "SOLVER.BASE_LR": 0.0005,
        "SOLVER.MAX_ITER": 6400,
        "SOLVER.WARMUP_ITERS": 200,
        "SOLVER.CHECKPOINT_PERIOD": 1600,
    }
    assert "square root, for AdamW" in str(derivation)


def test_the_rate_rises_in_as_many_steps_for_a_large_batch_but_before_it_drops():
    here = _here(_derive(ONE_X, "SOLVER.IMS_PER_BATCH", 64)[1])
    assert here["SOLVER.WARMUP_ITERS"] == 1000
    here = _here(_derive(ONE_X, "SOLVER.IMS_PER_BATCH", 1600)[1])
    assert (here["SOLVER.STEPS"], here["SOLVER.WARMUP_ITERS"]) == ((600, 800), 600)


def test_no_warm_up_stays_none(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {CONFIGS / 'Base-RCNN-FPN.yaml'}\nSOLVER: {{WARMUP_ITERS: 0}}\n"
    )
    _, derivation = _derive(tmp_path / "mine.yaml", "SOLVER.IMS_PER_BATCH", 4)
    assert "SOLVER.WARMUP_ITERS" not in _here(derivation)


def test_steps_of_a_short_schedule_stay_apart_and_before_the_end(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {CONFIGS / 'Base-RCNN-FPN.yaml'}\n"
        "SOLVER: {MAX_ITER: 20, STEPS: [11, 12, 19], CHECKPOINT_PERIOD: 3}\n"
    )
    here = _here(_derive(tmp_path / "mine.yaml", "SOLVER.IMS_PER_BATCH", 160)[1])
    assert here["SOLVER.MAX_ITER"] == 2
    assert here["SOLVER.STEPS"] == (1,)
    assert here["SOLVER.CHECKPOINT_PERIOD"] == 1


def test_the_table():
    _, derivation = _derive(ONE_X, "SOLVER.IMS_PER_BATCH", 2)
    lines = str(derivation).splitlines()
    assert lines[0] == "The config is written for steps of 16 images, this run has 2:"
    assert lines[1].split() == ["for", "16", "images", "for", "2", "images"]
    assert lines[2].split() == ["SOLVER.BASE_LR", "0.02", "0.0025", "linear", "rule"]
    assert lines[-1].endswith("2 at a time: SOLVER.IMS_PER_BATCH 16 SOLVER.ACCUMULATION_STEPS 8")
    assert "ACCUMULATION" not in str(_derive(ONE_X, "SOLVER.IMS_PER_BATCH", 32)[1])


@pytest.mark.parametrize(
    ("batch", "parts", "processes", "good"),
    [
        (16, 1, 3, "take 15 or 18: SOLVER.IMS_PER_BATCH 15"),
        (2, 1, 8, "take 8: SOLVER.IMS_PER_BATCH 8"),
        (16, 3, 2, "take 12 or 18: SOLVER.IMS_PER_BATCH 12"),
        (5, 2, 1, "one process with SOLVER.ACCUMULATION_STEPS 2"),
    ],
)
def test_batches_that_cannot_be_shared(batch, parts, processes, good):
    words = ["SOLVER.IMS_PER_BATCH", str(batch), "SOLVER.ACCUMULATION_STEPS", str(parts)]
    with pytest.raises(UsageError, match=good):
        check_shares(load_config(ONE_X, words), processes, {"SOLVER.IMS_PER_BATCH"})


def test_batches_that_can_be_shared():
    for processes in (1, 2, 4, 8, 16):
        check_shares(load_config(ONE_X), processes)
    check_shares(load_config(ONE_X, ["SOLVER.ACCUMULATION_STEPS", "4"]), 4)


def test_a_config_alone_is_told_apart_from_the_command_line():
    with pytest.raises(UsageError, match="is 16 in this config, which 3 processes"):
        check_shares(load_config(ONE_X), 3)


def test_two_rules_for_one_schedule_are_refused():
    with pytest.raises(UsageError, match="REFERENCE_BATCH 0; for the one by images"):
        check_recipe_keys(load_config(ONE_X, ["SOLVER.REFERENCE_WORLD_SIZE", "8"]))
    check_recipe_keys(
        load_config(ONE_X, ["SOLVER.REFERENCE_WORLD_SIZE", "8", "SOLVER.REFERENCE_BATCH", "0"])
    )
    with pytest.raises(UsageError, match="REFERENCE_BATCH is -1"):
        check_recipe_keys(load_config(ONE_X, ["SOLVER.REFERENCE_BATCH", "-1"]))
    check_recipe_keys(load_config(ONE_X))

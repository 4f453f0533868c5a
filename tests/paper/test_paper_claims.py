"""Claims of the paper, judged by records made by hand."""

from __future__ import annotations

from functools import partial

import pytest
from made_records import by_seed, current, kept, kept_with_matches, levels, made_matches, paper_with

from mask_rcnn_ext.paper import claims
from mask_rcnn_ext.paper.claims import direction, judge
from mask_rcnn_ext.paper.resampling import Difference, sample
from mask_rcnn_ext.paper.state import Sorted

IMAGES = 40
SOFTMAX, SIGMOID = "mask_R_50_C4_softmax", "mask_R_50_C4"
CLAIM = "sigmoid_over_softmax/mask_AP_gain"


@pytest.fixture(scope="module")
def paper():
    return paper_with()


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    monkeypatch.setattr(claims, "sample", partial(sample, draws=79))


def _run(folder, stage, seed, mean, task="segm", ground_truth="a set", number=0):
    """Of a run that finds about mean / 10 of everything; `number` tells runs of one seed apart."""
    matches = made_matches(levels(IMAGES, mean, 100 * number + seed), ground_truth)
    return kept_with_matches(folder, stage, seed, {task: matches})


def _pair(folder, first, second, seeds=3, **given):
    """Runs of sigmoid and softmax."""
    return [
        _run(folder, stage, seed, mean, **given)
        for stage, mean in ((SIGMOID, first), (SOFTMAX, second))
        for seed in range(1, 1 + seeds)
    ]


def _claims(paper, records, scale="coco"):
    found = judge(paper, scale, records)
    return {one.id: one for one in (*found.text, *found.steps)}


def _interval(low, high):
    return Difference((low + high) / 2, low, high, (1, 2, 3), 400, 399)


# ---- which claims there are


def test_claims_are_the_differences_of_the_text(paper):
    """Nothing is judged that is only quoted, of one stage alone, of time, or of rare classes."""
    text = judge(paper, "coco", Sorted()).text
    assert [(one.id, one.kind, one.paper) for one in text] == [
        ("class_specific_vs_agnostic/class_agnostic", "nearly", -0.6),
        ("sigmoid_over_softmax/mask_AP_gain", "gain", 5.5),
        ("roialign_gain/mask_AP_gain", "gain", 3),
        ("roialign_gain_stride_32/mask_AP_gain", "gain", 7.3),
        ("roialign_gain_stride_32/mask_AP75_gain", "gain", 10.5),
        ("roialign_gain_stride_32/box_AP_gain", "gain", 5.8),
        ("stride_32_over_16/mask_AP_gain", "gain", 0.6),
        ("roialign_gain_with_fpn/mask_AP_gain", "gain", 1.5),
        ("roialign_gain_with_fpn/box_AP_gain", "gain", 0.5),
        ("fcn_gain_over_mlp/mask_AP_gain", "gain", 2.1),
        ("table3_gains/multitask_box_AP", "gain", 0.9),
        ("table3_gains/resnext101_box_AP", "gain", 1.6),
        ("mask_box_gap_x101_fpn_test_dev/mask_AP", "nearly", -2.7),
        ("roialign_gain_keypoints/kp_AP_gain", "gain", 4.4),
        ("enhanced_overall/mask_AP_gain", "gain", 5.1),
        ("enhanced_overall/box_AP_gain", "gain", 7.7),
    ]
    by_id = {one.id: one for one in text}
    one = by_id["roialign_gain_stride_32/mask_AP75_gain"]
    assert (one.first, one.second, one.key) == ("mask_R_50_C5", "mask_R_50_C5_roipool", "segm/AP75")
    assert one.subject == "mask AP75 of mask_R_50_C5 less mask_R_50_C5_roipool"
    assert one.words == "at stride 32 RoIAlign improves masks most, and at the strict threshold"
    assert (one.source, one.where) == ("roialign_gain_stride_32", "4.2, table 2d")
    gap = by_id["mask_box_gap_x101_fpn_test_dev/mask_AP"]
    assert gap.subject == "mask AP less box AP of mask_X_101_FPN"


def test_steps_are_those_of_the_tables(paper):
    """Each with the sign that the paper prints; a row without a figure has no step."""
    steps = judge(paper, "coco", Sorted()).steps
    found = {one.id: one.paper for one in steps}
    assert [one for one in found if one.startswith(("2a", "5", "9"))] == [
        "2a/r101-c4/r50-c4/AP",
        "2a/r50-fpn/r50-c4/AP",
        "2a/r101-fpn/r50-fpn/AP",
        "2a/x101-fpn/r101-fpn/AP",
        "5/mask/faster/box_AP_person",
        "5/keypoint-mask/keypoint/box_AP_person",
        "5/keypoint-mask/keypoint/kp_AP",
        "5/keypoint-mask/mask/box_AP_person",
        "5/keypoint-mask/mask/mask_AP_person",
        "9/updated/baseline/AP",
        "9/deeper/updated/AP",
        "9/resnext/deeper/AP",
        "9/distillation/resnext/AP",
        "9/test-augm/distillation/AP",
    ]
    assert found["5/keypoint-mask/mask/box_AP_person"] == -1.6
    assert found["8/test-augm/non-local/box_AP"] == 2.3
    assert len([one for one in found if one.startswith("8/")]) == 14
    one = next(one for one in steps if one.id == "2a/r101-c4/r50-c4/AP")
    assert one.subject == "mask AP of ResNet-101-C4 less ResNet-50-C4"
    assert (one.source, one.where) == ("2a", "table 2a")


# ---- verdicts


@pytest.mark.parametrize(
    ("kind", "paper_says", "low", "high", "expected"),
    [
        ("gain", 5.5, 0.01, 2, "with the paper"),
        ("gain", 5.5, 0.0, 2, "neither way"),
        ("gain", 5.5, -1, 0.0, "neither way"),
        ("gain", 5.5, -1, -0.01, "against the paper"),
        ("gain", -1.6, -1, -0.01, "with the paper"),
        ("gain", -1.6, 0.01, 2, "against the paper"),
        ("nearly", -0.6, -3.0, 1, "with the paper"),
        ("nearly", -0.6, 4, 5, "with the paper"),
        ("nearly", -0.6, -3.01, -2, "neither way"),
        ("nearly", -0.6, -5, -3.0, "neither way"),
        ("nearly", -0.6, -5, -3.01, "against the paper"),
    ],
)
def test_the_rule(kind, paper_says, low, high, expected):
    assert direction(_interval(low, high), kind, paper_says, 3.0) == expected


def test_confirmed_and_contradicted(paper, tmp_path):
    up = _claims(paper, current(*_pair(tmp_path / "up", 8, 3)))[CLAIM]
    assert (up.verdict, up.points, up.reason) == ("confirmed", "with the paper", "")
    assert up.difference.value > 30
    assert up.difference.low > 0
    assert up.difference.seeds == (1, 2, 3)
    assert up.difference.images == IMAGES
    assert up.reading.startswith(f"Confirmed: {up.difference.value:.2f} points more mask AP (inter")
    down = _claims(paper, current(*_pair(tmp_path / "down", 3, 8)))[CLAIM]
    assert (down.verdict, down.points) == ("contradicted", "against the paper")
    assert f"{-down.difference.value:.2f} points less mask AP" in down.reading
    assert down.reading.endswith("the paper has more.")
    assert f"interval −{-down.difference.low:.2f} to −" in down.reading


def test_open_with_too_few_seeds_says_where_it_points(paper, tmp_path):
    one = _claims(paper, current(*_pair(tmp_path, 8, 3, seeds=2)))[CLAIM]
    assert (one.verdict, one.points) == ("open", "with the paper")
    assert one.reason == "2 of 3 seeds"
    assert one.reading.startswith("Open, 2 of 3 seeds: ")
    assert one.reading.endswith(", which points with the paper.")


def test_open_where_the_interval_contains_0(paper, tmp_path):
    records = [
        *(_run(tmp_path, SIGMOID, seed, 5, number=1) for seed in (1, 2, 3)),
        *(_run(tmp_path, SOFTMAX, seed, 5, number=2) for seed in (1, 2, 3)),
    ]
    one = _claims(paper, current(*records))[CLAIM]
    assert one.difference.low < 0 < one.difference.high
    assert (one.verdict, one.points) == ("open", "neither way")
    assert one.reason == "the interval contains 0"
    assert one.reading.startswith("Open, the interval contains 0: ")
    assert one.reading.endswith(").")


def test_open_says_which_runs_are_missing(paper, tmp_path):
    here = by_seed(_run(tmp_path, SIGMOID, 1, 5))
    one = _claims(paper, Sorted(current=here))[CLAIM]
    assert (one.verdict, one.points, one.difference) == ("open", None, None)
    assert one.reason == f"not run: {SOFTMAX}"
    assert one.reading == f"Open: not run: {SOFTMAX}."
    none = _claims(paper, Sorted())[CLAIM]
    assert none.reason == f"not run: {SIGMOID}, {SOFTMAX}"
    softmax = by_seed(kept(SOFTMAX, 1))
    stale = _claims(paper, Sorted(current=here, stale=softmax))[CLAIM]
    assert stale.reason == f"stale: {SOFTMAX}"
    failed = _claims(paper, Sorted(failed=softmax))[CLAIM]
    assert failed.reason == f"not run: {SIGMOID}; failed: {SOFTMAX}"
    other = by_seed(_run(tmp_path, SOFTMAX, 2, 5))
    apart = _claims(paper, Sorted(current=here | other))[CLAIM]
    assert apart.reason == f"no seed that both have: {SIGMOID}, {SOFTMAX}"


def test_open_without_matches_or_of_other_images(paper, tmp_path):
    sigmoid = _run(tmp_path, SIGMOID, 1, 5)
    bare = _claims(paper, current(sigmoid, kept(SOFTMAX, 1)))[CLAIM]
    assert bare.reason == f"{SOFTMAX}, seed 1: no segm matches were kept"
    other = _run(tmp_path, SOFTMAX, 1, 5, ground_truth="another set")
    one = _claims(paper, current(sigmoid, other))[CLAIM]
    assert one.verdict == "open"
    assert "not measured on the same images (a set, another set)" in one.reason


def test_a_run_with_damaged_matches_is_named(paper, tmp_path):
    records = _pair(tmp_path, 8, 3, seeds=1)
    (records[0].folder / "matches_segm.npz").write_bytes(b"no")
    one = _claims(paper, current(*records))[CLAIM]
    assert one.verdict == "open"
    assert "is not a whole file of matches" in one.reason


def test_masks_against_boxes_of_the_same_run(paper, tmp_path):
    """Matches of two tasks have fingerprints of their own."""
    stage = "mask_X_101_FPN"
    records = []
    for seed in (1, 2, 3):
        reached = levels(IMAGES, 6, seed)
        one_less = [max(level - 1, 0) for level in reached]
        matches = {"bbox": made_matches(reached, "boxes"), "segm": made_matches(reached, "masks")}
        records.append(kept_with_matches(tmp_path / "same", stage, seed, matches))
        matches["segm"] = made_matches(one_less, "masks")
        records.append(kept_with_matches(tmp_path / "less", stage, seed, matches))
    name = "mask_box_gap_x101_fpn_test_dev/mask_AP"
    same = _claims(paper, current(*records[::2]))[name]
    assert (same.verdict, same.difference.low, same.difference.high) == ("confirmed", 0, 0)
    expected = "0.00 points more mask AP than box AP (interval 0 to 0), at most 3 points behind."
    assert same.reading == f"Confirmed: {expected}"
    less = _claims(paper, current(*records[1::2]))[name]
    assert less.verdict == "contradicted"
    assert less.difference.value < -5
    assert less.reading.endswith("more than 3 points behind.")


def test_a_claim_on_ap75_is_judged_by_ap75(paper, tmp_path):
    """Right at six thresholds of ten, 0.50 to 0.75, against five."""
    records = [
        kept_with_matches(tmp_path, stage, 1, {"segm": made_matches([reached] * 20)})
        for stage, reached in (("mask_R_50_C5", 6), ("mask_R_50_C5_roipool", 5))
    ]
    found = _claims(paper, current(*records))
    assert found["roialign_gain_stride_32/mask_AP_gain"].difference.value == 10
    one = found["roialign_gain_stride_32/mask_AP75_gain"]
    assert one.difference.value == 100
    assert "more mask AP75" in one.reading


def test_a_step_down_is_confirmed_by_a_loss(paper, tmp_path):
    """Keypoints cost boxes 1.6 points in table 5."""
    records = [
        _run(tmp_path, stage, seed, mean, task="bbox")
        for stage, mean in (("keypoint_R_50_FPN_mask", 3), ("mask_R_50_FPN_person", 8))
        for seed in (1, 2, 3)
    ]
    found = _claims(paper, current(*records))
    one = found["5/keypoint-mask/mask/box_AP_person"]
    assert (one.verdict, one.difference.value < 0) == ("confirmed", True)
    masks = found["5/keypoint-mask/mask/mask_AP_person"]
    assert masks.reason.endswith("no segm matches were kept")


def test_test_time_augmentation_has_matches_of_the_plain_task(paper, tmp_path):
    """Its record holds those of the augmented evaluation under the task's own name."""
    records = [
        _run(tmp_path, "keypoint_X_101_FPN_distilled_views", 1, 8, task="keypoints"),
        _run(tmp_path, "keypoint_X_101_FPN_distilled", 1, 3, task="keypoints"),
    ]
    one = _claims(paper, current(*records))["9/test-augm/distillation/AP"]
    assert one.points == "with the paper"


def test_each_run_is_resampled_once(paper, tmp_path):
    """C4 with RoIAlign is in many claims."""
    names = (SIGMOID, SOFTMAX, "mask_R_50_C4_roipool", "mask_R_50_C5")
    records = current(*(_run(tmp_path, name, 1, 5) for name in names))
    told = []
    found = judge(paper, "coco", records, lambda done, of: told.append((done, of)))
    assert told == [(done, 4) for done in (1, 2, 3, 4)]
    assert sum(one.difference is not None for one in found.text) == 3


def test_on_generated_data(tmp_path):
    paper = paper_with(
        {"small": [SIGMOID], "small_softmax": [SOFTMAX], "both": ["mask_R_50_C5", "mask_R_50_FPN"]}
    )
    records = [
        _run(tmp_path, stage, seed, mean)
        for stage, mean in (("small", 8), ("small_softmax", 3))
        for seed in (1, 2, 3)
    ]
    found = _claims(paper, current(*records), "scenes")
    one = found[CLAIM]
    assert (one.verdict, one.first, one.second) == ("confirmed", "small", "small_softmax")
    assert one.paper == 5.5
    align = found["roialign_gain/mask_AP_gain"]
    assert (align.first, align.second) == ("small", None)
    assert align.reason == "no recipe for generated data: mask_R_50_C4_roipool"
    # The paper's own protocol has not been run.
    assert _claims(paper, current(*records), "coco")[CLAIM].reason.startswith("not run")


def test_nearly_as_good_is_a_share_on_generated_data(tmp_path):
    """Of the better side, with the seeds that both have; its AP may be a quarter of COCO's."""
    name, agnostic = "class_specific_vs_agnostic/class_agnostic", "mask_R_50_C4_agnostic"
    paper = paper_with({"small": [SIGMOID], "small_agnostic": [agnostic]})

    def judged(better: float, scale: str = "scenes"):
        stages = ("small", "small_agnostic") if scale == "scenes" else (SIGMOID, agnostic)
        folder = tmp_path / f"{scale}_{better}"
        figures = {stages[0]: better, stages[1]: 1.0}
        runs = [
            kept_with_matches(
                folder, stage, seed,
                {"segm": made_matches([9, 9, 9, 9 - (stage != stages[0])] * 20)},
                results={"segm/AP": figures[stage] + (seed == 4) * 40},
            )
            for stage in stages
            for seed in ((1, 2, 3, 4) if stage == stages[0] else (1, 2, 3))
        ]  # fmt: skip
        return _claims(paper, current(*runs), scale)[name]

    of_little, of_much = judged(6.0), judged(80.0)
    assert (of_little.margin, of_much.margin) == (0.6, 8.0)
    assert of_little.difference == of_much.difference
    assert (of_little.verdict, of_much.verdict) == ("contradicted", "confirmed")
    assert of_little.reading.endswith("more than 0.6 points behind.")
    assert judged(6.0, "coco").margin == judged(80.0, "coco").margin == 3.0
    assert _claims(paper, Sorted(), "scenes")[name].margin == 0.0


def test_one_stage_that_stands_for_both_says_nothing(tmp_path):
    paper = paper_with({"small": [SIGMOID, SOFTMAX]})
    one = _claims(paper, current(_run(tmp_path, "small", 1, 5)), "scenes")[CLAIM]
    assert (one.verdict, one.reason) == ("open", "small stands for both")

"""A record from what a run left: figures, matches by pycocotools' own code, pictures, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.evaluation.analysis import (
    PrecisionCurves,
    average_precision,
    compare,
    match_detections,
)
from mask_rcnn_ext.evaluation.coco_metrics import evaluate_coco
from mask_rcnn_ext.evaluation.coco_truth import GroundTruth
from mask_rcnn_ext.paper import load_paper
from mask_rcnn_ext.paper.matches_file import Matches, bits_of, read_matches, records_of
from mask_rcnn_ext.paper.records import find_records, read_record
from mask_rcnn_ext.tools.bench.infer import Agreement, Result, Side
from mask_rcnn_ext.tools.tables import gather
from mask_rcnn_ext.tools.tables.curves import read_curve
from mask_rcnn_ext.tools.tables.matches import EvaluatedSet, match_results
from mask_rcnn_ext.tools.tables.pictures import (
    LIMIT,
    Extreme,
    draw_strip,
    extremes,
    shares_of,
)

STAGE, PERSON = "mask_R_50_C4", "keypoint_R_50_FPN"
SIDE = 64  # pixels of an image of the made-up set
TASKS = ("bbox", "segm", "keypoints")


# ---- a made-up set: 14 images, 3 classes, crowds, ties, annotation id 0


def _rectangle(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _rle(box: list[float]) -> dict:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    x, y, w, h = (round(edge) for edge in box)
    mask[y : y + h, x : x + w] = 1
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [SIDE, SIDE], "counts": rle["counts"].decode()}


def _points(box: list[float], random: np.random.Generator) -> list[float]:
    x, y, w, h = box
    return [
        number
        for _ in range(17)
        for number in (x + w * random.random(), y + h * random.random(), 2)
    ]


def _jittered(box: list[float], random: np.random.Generator) -> list[float]:
    shift = random.normal(0, 0.08, 4) * [box[2], box[3], box[2], box[3]]
    x, y, w, h = (np.array(box) + shift).tolist()
    x, y = max(0.0, x), max(0.0, y)
    return [x, y, min(max(2.0, w), SIDE - x), min(max(2.0, h), SIDE - y)]


@pytest.fixture(scope="module")
def made_up() -> tuple[dict, list[dict]]:
    """Ground truth and results."""
    random = np.random.default_rng(5)
    truth: dict = {
        "images": [
            {"id": 900 - 7 * i, "height": SIDE, "width": SIDE, "file_name": f"{i}.png"}
            for i in range(14)
        ],
        "categories": [{"id": 9, "name": "a"}, {"id": 2, "name": "b"}, {"id": 4, "name": "c"}],
        "annotations": [],
    }
    results = []
    for image in truth["images"][:-1]:  # the last one is empty
        for _ in range(random.integers(1, 8)):
            w, h = random.uniform(6, 30, 2).tolist()
            x, y = random.uniform(0, SIDE - w), random.uniform(0, SIDE - h)
            points = _points([x, y, w, h], random)
            category = int(random.choice([9, 2]))
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]),
                    "image_id": image["id"],
                    "category_id": category,
                    "iscrowd": int(random.random() < 0.1),
                    "area": w * h,
                    "bbox": [x, y, w, h],
                    "segmentation": _rectangle(x, y, w, h),
                    "keypoints": points,
                    "num_keypoints": 17,
                }
            )
            for _ in range(random.integers(0, 4)):
                found = _jittered([x, y, w, h], random)
                noise = random.normal(0, 1.0, len(points))
                noise[2::3] = 0
                results.append(
                    {
                        "image_id": image["id"],
                        "category_id": int(random.choice([category, category, 4])),
                        "bbox": found,
                        "segmentation": _rle(found),
                        "keypoints": (np.array(points) + noise).tolist(),
                        # few values, so that some are equal; and a certain one
                        "score": float(random.choice([0.05, 0.3, 0.499, 0.5, 0.8, 1.0])),
                    }
                )
    return truth, results


def _ap(matches: Matches, images: np.ndarray | None = None) -> float:
    return average_precision(PrecisionCurves(records_of(matches)).precision(images))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("cap", [100, 2])
def test_ap_is_that_of_the_evaluation(made_up, task, cap):
    truth, results = made_up
    matches = match_results(GroundTruth.of(truth), results, task, cap=cap)
    figures = evaluate_coco(truth, results, task, max_dets=(1, min(10, cap), cap))
    assert 5 < figures.stats["AP"] < 95
    assert 100 * _ap(matches) == pytest.approx(figures.stats["AP"], abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_ap_is_that_of_pycocotools(made_up, task, tmp_path):
    """Called as anybody calls it, with annotation ids from 1 on."""
    truth, results = made_up
    # Copies: its code writes into what it is given.
    shifted = [{**one, "id": one["id"] + 1} for one in truth["annotations"]]
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({**truth, "annotations": shifted}))
    coco = COCO(str(file))
    keys = ("image_id", "category_id", "score", {"segm": "segmentation"}.get(task, task))
    evaluation = COCOeval(coco, coco.loadRes([{k: r[k] for k in keys} for r in results]), task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    matches = match_results(GroundTruth.of(truth), results, task, cap=100)
    assert _ap(matches) == pytest.approx(evaluation.stats[0], abs=1e-9)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_ap_of_drawn_images_is_that_of_the_analyses(made_up, task, tmp_path):
    """Which have a matching of their own, and the scores themselves."""
    from mask_rcnn_ext.data.coco_table import read_coco_table

    truth, results = made_up
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth))
    records = match_detections(compare(read_coco_table(file), results, task))
    matches = match_results(GroundTruth.of(truth), results, task, cap=100)
    own = records_of(matches)
    assert own.ignored.any()
    random = np.random.default_rng(1)
    ones, others = PrecisionCurves(own), PrecisionCurves(records)
    for _ in range(20):
        images = np.sort(random.integers(0, own.num_images, own.num_images))
        expected = average_precision(others.precision(images))
        assert average_precision(ones.precision(images)) == pytest.approx(expected, abs=1e-9)


def test_the_fingerprint_is_of_the_set_alone(made_up):
    truth, results = made_up
    one = match_results(GroundTruth.of(truth), results, "bbox", cap=100).ground_truth
    assert match_results(GroundTruth.of(truth), results[:5], "bbox", cap=100).ground_truth == one
    fewer = {**truth, "annotations": truth["annotations"][1:]}
    assert match_results(GroundTruth.of(fewer), [], "bbox", cap=100).ground_truth != one
    assert match_results(GroundTruth.of(truth), [], "segm", cap=100).ground_truth != one
    for section, key in (("images", "image_id"), ("categories", "category_id")):
        others = {**truth, section: [{**row, "id": row["id"] + 1} for row in truth[section]]}
        others["annotations"] = [{**a, key: a[key] + 1} for a in truth["annotations"]]
        assert match_results(GroundTruth.of(others), [], "bbox", cap=100).ground_truth != one


def test_sigmas_are_those_of_the_evaluation(made_up):
    truth, results = made_up
    sigmas = [0.01] * 17
    matches = match_results(GroundTruth.of(truth), results, "keypoints", cap=100, sigmas=sigmas)
    usual = match_results(GroundTruth.of(truth), results, "keypoints", cap=100)
    figures = evaluate_coco(truth, results, "keypoints", sigmas=sigmas)
    assert 100 * _ap(matches) == pytest.approx(figures.stats["AP"], abs=1e-9)
    assert _ap(matches) < _ap(usual)


def test_what_is_kept_of_a_detection(made_up):
    truth, results = made_up
    matches = match_results(GroundTruth.of(truth), results, "bbox", cap=100)
    shown = sum(one["score"] >= 0.5 for one in results)  # and 0.499 is not
    assert np.count_nonzero(matches.score >= 128) == shown
    assert matches.ignored.any()
    assert not (matches.right & matches.ignored).any()
    assert matches.tied.any()


@pytest.mark.parametrize("task", TASKS)
def test_nothing_found(made_up, task):
    truth, _ = made_up
    matches = match_results(GroundTruth.of(truth), [], task, cap=100)
    assert len(matches.image) == 0
    assert _ap(matches) == 0


# ---- best, median, worst


def _matches(shown: list[tuple[int, float, bool]], objects: list[int]) -> Matches:
    """Of one category. Args: shown: (image, score, right) by falling score"""
    right = np.array([[ok for _, _, ok in shown]] * 10, bool).reshape(10, -1)
    there = np.flatnonzero(objects)
    return Matches(
        ground_truth="",
        num_images=len(objects),
        starts=np.array([0, len(shown)]),
        image=np.array([image for image, _, _ in shown], int),
        score=np.array([int(256 * score) for _, score, _ in shown], np.uint8),
        tied=np.zeros(len(shown), bool),
        right=bits_of(right),
        ignored=np.zeros(len(shown), np.uint16),
        object_starts=np.array([0, len(there)]),
        object_image=there,
        object_count=np.array(objects)[there],
    )


def test_shares_count_what_is_shown():
    shown = [(0, 0.9, True), (0, 0.8, False), (1, 0.7, True), (1, 0.6, True), (3, 0.5, True)]
    hidden = [(3, 0.49, False), (0, 0.3, True)]
    shares = shares_of(_matches(shown + hidden, [2, 2, 0, 1]))
    assert shares[[0, 1, 3]].tolist() == pytest.approx([1 / 3, 1, 1])
    assert math.isnan(shares[2])  # no objects


def test_extremes_are_in_order_and_ties_go_by_id():
    matches = _matches([(4, 0.9, True), (2, 0.8, True), (0, 0.7, False)], [1, 0, 1, 1, 1])
    found = [(one.word, one.image, one.share) for one in extremes(matches)]
    # 2 and 4 are all right, 3 and 0 not at all
    assert found == [("best", 2, 1.0), ("median", 0, 0.0), ("worst", 3, 0.0)]


def test_of_many_equal_ones_the_lowest_id_comes_first():
    found = [(one.word, one.image) for one in extremes(_matches([], [1, 0] * 50))]
    assert found == [("best", 0), ("median", 50), ("worst", 98)]


@pytest.mark.parametrize(("objects", "words"), [([0, 0], []), ([0, 1], ["best"])])
def test_few_images(objects, words):
    assert [one.word for one in extremes(_matches([], objects))] == words


# ---- curves


def _metrics(path, entries) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))


def test_a_curve_is_thinned_out(tmp_path):
    entries = [{"iteration": i, "total_loss": 10.0 - i / 100, "time": 0.2} for i in range(500)]
    entries[3]["time"] = 90.0
    _metrics(tmp_path / "m.json", [*entries, {"iteration": 500, "bbox/AP": 3.0, "time": 7.0}])
    curve = read_curve(tmp_path / "m.json")
    assert len(curve.points) == 60
    assert curve.points[0] == (0, 10.0)
    assert curve.points[-1] == (499, 5.01)
    assert curve.seconds == 0.2
    assert len(dict(curve.points)) == 60


def test_what_is_no_number_is_left_out(tmp_path):
    entries = [{"iteration": 1, "total_loss": math.nan}, {"iteration": 2, "total_loss": 1.234567}]
    _metrics(tmp_path / "m.json", [*entries, {"iteration": 2, "bbox/AP": 1.0, "time": 7.0}])
    curve = read_curve(tmp_path / "m.json")
    assert curve.points == [(2, 1.2346)]
    assert curve.seconds is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"iteration": 2, "total_', "line 2 is not JSON"),
        ("[1]", "line 2 is not an object with an iteration"),
        ('{"total_loss": 1}', "line 2 is not an object with an iteration"),
        ('{"iteration": 2, "total_loss": "x"}', "line 2: total_loss is 'x'"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, problem):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 1, "total_loss": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=f"metrics.json: {problem}"):
        read_curve(path)


# ---- a run's folder


def _found(annotations: list[dict], hit: float) -> list[dict]:
    """The ground truth as results, every other object well hit, those between by `hit`."""
    found: list[dict] = []
    for one in annotations:
        if one["iscrowd"]:
            continue
        keys = [k for k in ("image_id", "category_id", "segmentation", "keypoints") if k in one]
        x, y, w, h = one["bbox"]
        shift = len(found) % 2 * (1 - hit) * w
        result = {key: one[key] for key in keys}
        if "keypoints" in result:
            result["keypoints"] = [v + shift * (n % 3 == 0) for n, v in enumerate(one["keypoints"])]
        found.append(result | {"bbox": [x + shift, y, w, h], "score": 0.9 - 0.01 * len(found)})
    return found


def _write_run(folder, json_file, name, tasks, suffix="", hit=0.7, **settings) -> None:
    """results.json (added to) and predictions, as an evaluation writes them."""
    found = _found(json.loads(json_file.read_text())["annotations"], hit)
    target = folder / "inference" / f"{name}{suffix}"
    target.mkdir(parents=True)
    (target / "coco_instances_results.json").write_text(json.dumps(found))
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for task in tasks:
        stats = evaluate_coco(str(json_file), found, task, **settings).stats
        for key in ("AP", "AP50", "APl"):
            value = stats[key]
            results[f"{task}{suffix}/{key}"] = None if math.isnan(value) else value
    path.write_text(json.dumps(results))


RUN = {
    "state": "finished",
    "seed": 1,
    "commit": "abc+changes",
    "versions": {"torch": "2.0"},
    "device": "cpu (2 cores)",
    "threads": 1,
    "precision": {"training": "mixed, auto", "test": "float32"},
    "datasets": {"scenes_val": "0123"},
    "started": "2026-01-02T03:04:05Z",
    "starts": [{"reached": 20}, {"reached": 40}],
    "wall_seconds": 180.0,
    "peak_memory_mb": 900.5,
}


def _run_folder(folder, name, most=0):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(RUN))
    sets = {"TEST": [name], "TRAIN": ["scenes_train"], "REGISTRY": [], "MAX_IMAGES": most}
    test = {"DETECTIONS_PER_IMAGE": 100, "KEYPOINT_OKS_SIGMAS": [], "AUG": {"ENABLED": False}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"DATASETS": sets, "TEST": test}))
    _metrics(
        folder / "metrics.json",
        [{"iteration": i, "total_loss": 1.0 / (i + 1), "time": 0.25} for i in (19, 39)],
    )
    return folder


@pytest.fixture
def run(scenes, tmp_path):
    """A finished run on four scenes."""
    folder = _run_folder(tmp_path / "run", "scenes_val")
    annotations = scenes / "scenes" / "annotations" / "instances_val.json"
    _write_run(folder, annotations, "scenes_val", ["bbox", "segm"])
    return folder


def _gather(run, *words, stage=STAGE, seed=1, scale="coco") -> int:
    records = run.parent / "records"
    given = ["--stage", stage, "--seed", seed, "--key", "K1", "--code", "C1", "--scale", scale]
    given += ["--out", run.parent, "--records", records, "--run", run, *words]
    return gather.main([str(word) for word in given])


def _kept(run, stage=STAGE, seed=1, scale="coco"):
    return read_record(run.parent / "records" / scale / stage / f"seed_{seed}")


def test_a_training(run):
    assert _gather(run) == 0
    kept = _kept(run)
    record = kept.record
    assert (record.stage, record.kind, record.seed) == (STAGE, "train", 1)
    assert (record.scale, record.smoke, record.state) == ("coco", False, "finished")
    assert (record.key, record.code, record.commit) == ("K1", "C1", "abc+changes")
    assert record.config == "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_iccv.yaml"
    assert record.overrides == load_paper().stages[STAGE].words
    assert (record.device, record.threads, record.precision) == ("cpu (2 cores)", 1, "mixed, auto")
    assert record.machine
    assert (record.hours, record.iterations, record.seconds_per_iteration) == (0.05, 40, 0.25)
    assert (record.memory_mb, record.gpu_memory_mb) == (900.5, None)
    assert record.curve == [(19, 0.05), (39, 0.025)]
    assert (record.datasets, record.started) == ({"scenes_val": "0123"}, "2026-01-02T03:04:05Z")
    given = json.loads((run / "results.json").read_text())
    assert record.results == {**given, "run/hours": 0.05, "run/seconds_per_iteration": 0.25}
    assert record.results["bbox/APl"] is None
    assert sorted(record.files) == ["matches_bbox.npz", "matches_segm.npz", "pictures.webp"]
    for task in ("bbox", "segm"):
        matches = read_matches(kept.file(f"matches_{task}.npz"))
        assert 100 * _ap(matches) == pytest.approx(given[f"{task}/AP"], abs=1e-6)
    assert 0 < given["bbox/AP"] < given["segm/AP"]
    assert not [one for one in kept.folder.parent.iterdir() if one != kept.folder]


def test_pictures_are_small_and_have_three_columns(run):
    assert _gather(run) == 0
    path = _kept(run).file("pictures.webp")
    assert path.stat().st_size <= LIMIT
    picture = cv2.imread(str(path))
    assert picture.shape == (2 * (256 + 20), 3 * 256 + 2 * 6, 3)
    assert (picture[:20].min(axis=2) < 100).any(), "a caption"


def test_ground_truth_is_above_and_what_is_shown_below(scenes, tmp_path):
    annotations = scenes / "scenes" / "annotations" / "instances_val.json"
    tested = EvaluatedSet(
        "scenes_val", str(annotations), str(scenes / "scenes" / "val"), GroundTruth.of(annotations)
    )
    found = _found(json.loads(annotations.read_text())["annotations"], 0.7)

    def strip(score):
        results = [{**one, "score": score} for one in found]
        return draw_strip([Extreme("best", 0, 1.0)], tested, results)

    content = json.loads(annotations.read_text())
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps({**content, "images": content["images"][::-1]}))
    nothing = draw_strip([Extreme("best", 0, 1.0)], tested, [])
    assert strip(0.49) == nothing
    assert strip(0.5) != nothing
    tested = replace(tested, json_file=str(turned))  # the order is that of the ids
    assert strip(0.49) == nothing
    above, below = np.split(cv2.imdecode(np.frombuffer(nothing, np.uint8), 1).astype(int), 2)
    assert np.abs(above[30:] - below[30:]).mean() > 1


@pytest.mark.parametrize(("words", "seed"), [(["--no-pictures"], 1), ([], 2)])
def test_no_pictures(run, words, seed):
    (run / "run.json").write_text(json.dumps({**RUN, "seed": seed}))
    assert _gather(run, *words, seed=seed) == 0
    assert sorted(_kept(run, seed=seed).record.files) == ["matches_bbox.npz", "matches_segm.npz"]


def test_keypoints(scenes, tmp_path):
    folder = _run_folder(tmp_path / "run", "scenes_keypoints_val")
    annotations = scenes / "scenes" / "annotations" / "person_keypoints_val.json"
    _write_run(folder, annotations, "scenes_keypoints_val", ["bbox", "keypoints"])
    assert _gather(folder, stage=PERSON) == 0
    kept = _kept(folder, PERSON)
    assert sorted(kept.record.files) == [
        "matches_bbox.npz",
        "matches_keypoints.npz",
        "pictures.webp",
    ]
    matches = read_matches(kept.file("matches_keypoints.npz"))
    given = kept.record.results["keypoints/AP"]
    assert given is not None
    assert 0 < given < 100
    assert 100 * _ap(matches) == pytest.approx(given, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "file", "settings", "keys"),
    [
        ("bbox", "instances", {"max_dets": (1, 1, 1)}, {"DETECTIONS_PER_IMAGE": 1}),
        (
            "keypoints",
            "person_keypoints",
            {"sigmas": [0.01] * 17},
            {"KEYPOINT_OKS_SIGMAS": [0.01] * 17},
        ),
    ],
)
def test_settings_of_the_evaluation(scenes, tmp_path, task, file, settings, keys):
    """And a set of the user's own."""
    annotations = scenes / "scenes" / "annotations" / f"{file}_val.json"
    name = f"mine_{task}"
    described = {
        "name": name,
        "format": "coco",
        "root": str(scenes / "scenes"),
        "splits": {"val": {"annotations": str(annotations), "images": "val"}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(described))
    folder = _run_folder(tmp_path / "run", f"{name}_val")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["DATASETS"]["REGISTRY"] = [str(tmp_path / "mine.yaml")]
    config["TEST"] |= keys
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    _write_run(folder, annotations, f"{name}_val", [task], hit=0.9, **settings)
    results = folder / "inference" / f"{name}_val" / "coco_instances_results.json"
    usual = evaluate_coco(str(annotations), str(results), task).stats["AP"]
    assert _gather(folder) == 0
    assert _kept(folder).record.results[f"{task}/AP"] < usual - 1


def test_with_augmentation_the_augmented_results_count(run, scenes):
    paper = load_paper()
    stage = next(one for one in paper.stages.values() if one.key_of("segm/AP") != "segm/AP")
    annotations = scenes / "scenes" / "annotations" / "instances_val.json"
    _write_run(run, annotations, "scenes_val", ["bbox", "segm"], suffix="_TTA", hit=0.95)
    assert _gather(run, stage=stage.id) == 0
    kept = _kept(run, stage.id)
    results = kept.record.results
    assert results["bbox_TTA/AP"] > results["bbox/AP"] + 1
    matches = read_matches(kept.file("matches_bbox.npz"))
    assert 100 * _ap(matches) == pytest.approx(results["bbox_TTA/AP"], abs=1e-6)
    assert kept.record.overrides == stage.words
    assert kept.record.curve == []  # of an evaluation there is none
    assert "run/hours" not in results


def test_the_first_images_of_a_set(scenes, tmp_path):
    """DATASETS.MAX_IMAGES, as smoke runs have it; kept apart."""
    from mask_rcnn_ext.data.subset import register_subset

    folder = _run_folder(tmp_path / "run", "scenes_val_first2", most=2)
    register_subset("scenes_val", 2, folder / "datasets")
    annotations = folder / "datasets" / "scenes_val_first2.json"
    _write_run(folder, annotations, "scenes_val_first2", ["bbox", "segm"])
    assert _gather(folder, "--smoke", "--given", "TEST.PRECISION", "float32") == 0
    kept = _kept(folder, scale="smoke")
    assert kept.record.smoke
    assert "DATASETS.MAX_IMAGES" in kept.record.overrides
    assert kept.record.overrides[-2:] == ["TEST.PRECISION", "float32"]
    assert read_matches(kept.file("matches_segm.npz")).num_images == 2
    assert not list(find_records(folder.parent / "records", "coco"))


def test_proposals_and_several_sets_have_figures_alone(run):
    figures = {"scenes_train/box_proposals/AR@100": 45.4, "scenes_val/box_proposals/AR@100": None}
    (run / "results.json").write_text(json.dumps(figures))
    assert _gather(run, stage="proposals_R_50_C4") == 0
    record = _kept(run, "proposals_R_50_C4").record
    assert record.results == figures
    assert record.files == {}


def test_timing(tmp_path):
    def side(model):
        seconds = {"input": [0.1, 0.2, 0.3], "model": [model] * 3, "masks": [0.3, 0.2, 0.4]}
        return Side(None, None, None, seconds)  # type: ignore[arg-type]

    facts = {"images": 4, "device_name": "a GPU", "threads": 2, "precision": "float16"}
    result = Result(side(1.5), side(9.0), Agreement(1.0, 0.0, None), 10.0, facts)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "bench.json").write_text(json.dumps(result.as_json()))
    stage = next(one.id for one in load_paper().stages.values() if one.kind == "time")
    assert _gather(folder, "--hours", "0.5", stage=stage) == 0
    record = _kept(folder, stage).record
    assert record.results == pytest.approx(
        {"time/ms_per_image": 475.0, "time/masks_ms": 75.0, "time/images_per_second": 4 / 1.9}
    )
    assert (record.device, record.threads, record.precision) == ("a GPU", 2, "float16")
    assert record.hours == 0.5
    assert record.versions["torch"]


@pytest.mark.parametrize(
    ("scores", "threshold"), [([0.4321], 0.4321), ([0.1, 0.2], None), ([None], None)]
)
def test_distilled_labels(tmp_path, scores, threshold):
    folder = tmp_path / "run"
    folder.mkdir()
    info = {"images": 8, "objects": 20, "objects_per_image": 2.5, "made_by": "x"}
    info["thresholds"] = [{"score": score, "kept": 20} for score in scores]
    labels = {"info": info, "categories": [], "images": [{"id": 1}], "annotations": []}
    (folder / "labels.json").write_text(json.dumps(labels))
    stage = next(one.id for one in load_paper().stages.values() if one.kind == "distill")
    assert _gather(folder, "--device", "cpu", stage=stage) == 0
    assert _kept(folder, stage).record.results == {
        "labels/images": 8.0,
        "labels/objects": 20.0,
        "labels/objects_per_image": 2.5,
        "labels/threshold": threshold,
    }


# ---- stages that failed


def test_a_failed_stage(run):
    (run / "results.json").unlink()
    assert _gather(run, "--failed", "out of memory") == 0
    record = _kept(run).record
    assert (record.state, record.reason) == ("failed", "out of memory")
    assert _gather(run, "--failed", "no space") == 0
    assert _kept(run).record.reason == "no space"
    assert (record.results, record.files, record.curve) == ({}, {}, [])
    assert (record.hours, record.commit) == (0.05, "abc+changes")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_stage_that_failed_at_once(tmp_path, content):
    folder = tmp_path / "run"
    if content is not None:
        folder.mkdir()
        (folder / "run.json").write_text(content)
    assert _gather(folder, "--failed", "no such config") == 0
    assert _kept(folder).record.reason == "no such config"


# ---- refusals


def _records(run) -> list[str]:
    return sorted(
        str(p.relative_to(run.parent / "records")) for p in (run.parent / "records").rglob("*")
    )


def _changed(path, **changes):
    content = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name", ["run.json", "results.json", "metrics.json", "config.yaml", "inference/scenes_val/"]
)
@pytest.mark.parametrize("how", ["missing", "cut off", "empty"])
def test_a_file_that_is_missing_or_broken(run, capsys, name, how):
    path = run / (name + "coco_instances_results.json" if name.endswith("/") else name)
    if how == "missing":
        path.unlink()
    else:
        text = path.read_text()
        path.write_text("" if how == "empty" else text[: len(text) * 2 // 3])
    code = _gather(run)
    said = capsys.readouterr().err
    if (name, how) == ("metrics.json", "empty"):
        assert code == 0  # a training shorter than the log's period
        return
    assert code == 1
    assert str(path) in said
    assert "Traceback" not in said
    assert _records(run) == []


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("run.json", {"state": "stopped"}, "run.json has the state stopped, expected finished"),
        ("run.json", {"seed": 4}, "run.json has the seed 4, expected 1"),
        ("run.json", {"device": None}, "run.json is not what a run leaves: .*`device`"),
        ("run.json", {"wall_seconds": "x"}, "run.json is not what .*float"),
        ("results.json", {"segm/AP": "high"}, "results.json is not what .*float"),
        ("results.json", {"segm/AP": 12.5}, "segm/AP .*says 12.5.*two evaluations"),
        ("config.yaml", {"TEST": None}, "config.yaml is not what .*`TEST`"),
    ],
)
def test_a_field_that_is_wrong(run, capsys, name, changes, problem):
    import re

    _changed(run / name, **changes)
    assert _gather(run) == 1
    assert re.search(problem, capsys.readouterr().err)
    assert _records(run) == []


def test_a_data_set_that_nobody_knows(run, capsys):
    _changed(
        run / "config.yaml", DATASETS={"TEST": ["scenes_vla"], "REGISTRY": [], "MAX_IMAGES": 0}
    )
    assert _gather(run) == 1
    said = capsys.readouterr().err
    assert "scenes_vla" in said
    assert "config.yaml" in said


def test_images_that_are_gone(run, scenes, monkeypatch, tmp_path, capsys):
    import shutil

    shutil.copytree(scenes, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "scenes" / "val")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    assert _gather(run) == 1
    assert ".png" in capsys.readouterr().err or ".jpg" in capsys.readouterr().err
    assert _gather(run, "--no-pictures") == 0


def test_an_unknown_stage(run, capsys):
    assert _gather(run, stage="mask_R_50_C44") == 2
    assert "did you mean mask_R_50_C4" in capsys.readouterr().err


# ---- writing


def test_a_record_takes_the_place_of_the_one_before(run):
    assert _gather(run) == 0
    folder = _kept(run).folder
    (folder / "old.txt").touch()
    left = folder.with_name(".seed_1.0123abcd")
    left.mkdir()  # of a process that was killed
    assert _gather(run, "--no-pictures") == 0
    names = ["matches_bbox.npz", "matches_segm.npz", "record.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [path.name for path in folder.parent.iterdir()] == ["seed_1"]


def _other_run(run, **changes):
    """Another one, a day later; `changes` of its figures."""
    _changed(run / "run.json", started="2026-01-03T03:04:05Z", wall_seconds=999.0)
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | changes))


def test_the_record_of_a_run_stays_where_another_repeats_it(run, capsys):
    assert _gather(run) == 0
    before = (_kept(run).folder / "record.json").read_bytes()
    _other_run(run)
    assert _gather(run) == 0
    assert "the same figures as before, the record stays" in capsys.readouterr().out
    assert (_kept(run).folder / "record.json").read_bytes() == before


@pytest.mark.parametrize("other", ["figures", "losses", "key", "pictures", "failed", "broken"])
def test_the_record_of_another_run_is_written(run, other):
    assert _gather(run, *(["--failed", "a reason"] if other == "failed" else [])) == 0
    folder = _kept(run).folder
    value = json.loads((run / "results.json").read_text())["bbox/AP50"]
    _other_run(run, **({"bbox/AP50": value + 1e-9} if other == "figures" else {}))
    if other == "losses":
        _metrics(run / "metrics.json", [{"iteration": 19, "total_loss": 0.051, "time": 0.25}])
    if other == "broken":
        (folder / "matches_segm.npz").write_bytes(b"cut off")
    more = {"key": ["--key", "K2"], "pictures": ["--no-pictures"]}.get(other, [])
    assert _gather(run, *more) == 0
    assert _kept(run).record.started == "2026-01-03T03:04:05Z"
    assert _kept(run).record.state == "finished"


@pytest.mark.parametrize("place", ["write_record", "write_matches"])
def test_a_disk_that_is_full_leaves_the_record_before(run, monkeypatch, capsys, place):
    assert _gather(run) == 0
    before = _records(run)

    def full(path, *rest):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(gather, place, full)
    assert _gather(run, "--no-pictures") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert _records(run) == before
    assert _kept(run).record.state == "finished"

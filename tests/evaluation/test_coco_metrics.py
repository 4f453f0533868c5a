"""Figures are pycocotools' to the last bit, on generated data, on real data, and at the edges."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask_rcnn_ext.data.coco_table import read_coco_table
from mask_rcnn_ext.errors import DataError, UsageError
from mask_rcnn_ext.evaluation import coco_backends
from mask_rcnn_ext.evaluation.coco_backends import choose_backend, mask_boundary
from mask_rcnn_ext.evaluation.coco_metrics import evaluate_coco
from mask_rcnn_ext.evaluation.coco_report import classes_text, summary_text
from mask_rcnn_ext.evaluation.coco_truth import GroundTruth

H, W = 60, 80
ARRAYS = ("precision", "recall", "scores")


def rle_of(mask: np.ndarray, text: bool = True) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode() if text else rle["counts"]}


def runs_of(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.ravel(order="F"), [-1]])
    return np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()


def polygon(x: float, y: float, w: float, h: float) -> list[float]:
    return [x + 0.4 * w, y, x + w, y + 0.5 * h, x + 0.6 * w, y + h, x, y + 0.6 * h]


def made_up(seed: int, *, ties: bool = False, keypoints: int = 0, crowds: float = 0.2):
    """Ground truth and detections in a small world of many overlaps."""
    r = np.random.default_rng(seed)
    categories = [5, 2, 11, 90]  # not in order; the last one has no ground truth
    annotations, results = [], []
    for i in range(60):
        x, y = r.uniform(0, [W - 20, H - 20])
        w, h = r.uniform(4, 45, 2)
        w, h = min(w, W - x), min(h, H - y)
        shape = [polygon(x, y, w, h)]
        mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shape, H, W)))
        crowd = int(r.random() < crowds)
        one = {
            "id": 100 - i,
            "image_id": int(r.choice([3, 1, 20, 7, 8])),
            "category_id": int(r.choice(categories[:3])),
            "iscrowd": crowd,
            "bbox": [x, y, w, h],
            "area": float(mask.sum()) * r.choice([1, 1, 20]),
            "segmentation": {"size": [H, W], "counts": runs_of(mask)} if crowd else shape,
        }
        if keypoints:
            flags = r.integers(0, 3, keypoints) * (r.random() > 0.2)
            points = np.column_stack([r.uniform(0, W, (keypoints, 2)), flags])
            one["keypoints"] = points.ravel().tolist()
            one["num_keypoints"] = int((flags > 0).sum())
        annotations.append(one)
    for _ in range(400):
        of = annotations[r.integers(60)]
        x, y, w, h = np.array(of["bbox"]) + r.normal(0, 2, 4)
        x, y, w, h = (float(v) for v in (x, y, max(w, 1), max(h, 1)))
        one = {
            "image_id": of["image_id"] if r.random() < 0.9 else int(r.choice([1, 20, 30])),
            "category_id": of["category_id"] if r.random() < 0.9 else int(r.choice(categories)),
            "bbox": [x, y, w, h],
            "score": float(r.integers(0, 11) / 10 if ties else r.random()),
            "segmentation": rle_of(coco_mask.decode(
                coco_mask.merge(coco_mask.frPyObjects([polygon(x, y, w, h)], H, W)))),
        }  # fmt: skip
        if keypoints:
            points = np.array(of["keypoints"]).reshape(-1, 3) + r.normal(0, 2, (keypoints, 3))
            one["keypoints"] = points.ravel().tolist()
        results.append(one)
    truth = {
        "images": [
            {"id": i, "height": H, "width": W, "file_name": ""} for i in (3, 1, 20, 7, 8, 30)
        ],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": annotations,
    }  # fmt: skip
    return truth, results


def official(truth, results, task, max_dets=None, sigmas=None) -> COCOeval:
    """pycocotools, and nothing of ours around it."""
    truth, results = copy.deepcopy(truth), copy.deepcopy(results)
    if task == "segm":
        for one in results:
            one.pop("bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = {"info": {}} | truth
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(results), task)
        if max_dets:
            evaluation.params.maxDets = list(max_dets)
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_official(figures, evaluation, stats: bool = True) -> None:
    for name in ARRAYS:
        assert np.array_equal(getattr(figures, name), evaluation.eval[name]), name
    if stats:
        theirs = [math.nan if s == -1 else s * 100 for s in evaluation.stats]
        np.testing.assert_array_equal(list(figures.stats.values()), theirs)


@pytest.fixture(params=["hotcoco", "pycocotools"])
def backend(request) -> str:
    return request.param


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", range(4))
def test_arrays_and_summary_are_pycocotools_bit_for_bit(backend, task, seed):
    truth, results = made_up(seed, ties=seed % 2 == 0, keypoints=17 * (task == "keypoints"))
    figures = evaluate_coco(truth, results, task, backend=backend)
    assert_official(figures, official(truth, results, task))
    assert figures.backend == backend
    assert 0 < figures.stats["AP"] < 100


def test_from_files_columns_and_dicts(tmp_path, backend):
    truth, results = made_up(1)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    evaluation = official(truth, results, "segm")
    table = read_coco_table(tmp_path / "gt.json")
    for source in (tmp_path / "gt.json", table, GroundTruth.of(table), truth):
        for found in (tmp_path / "dt.json", results):
            assert_official(evaluate_coco(source, found, "segm", backend=backend), evaluation)


@pytest.mark.parametrize("caps", [(1, 2, 3), (1, 1, 1), (1, 10, 300)])
def test_caps_on_detections(backend, caps):
    truth, results = made_up(2)
    results = [one | {"image_id": 1, "category_id": 2} for one in results]
    figures = evaluate_coco(truth, results, "bbox", max_dets=caps, backend=backend)
    # pycocotools' own summary only knows 100 (its AP is then -1).
    assert_official(figures, official(truth, results, "bbox", caps), stats=False)
    assert f"AR{caps[-1]}" in figures.stats
    assert any("not comparable" in note for note in figures.notes)


def test_a_cap_that_nothing_reaches_changes_nothing(backend):
    truth, results = made_up(2)
    one, other = (
        evaluate_coco(truth, results, "bbox", max_dets=caps, backend=backend)
        for caps in (None, (1, 10, 200))
    )
    assert one.stats["AP"] == other.stats["AP"]
    assert any("so AP is the official figure" in note for note in other.notes)
    assert not any("comparable" in note for note in one.notes)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_no_detections_no_ground_truth(backend, task):
    truth, results = made_up(3)
    figures = evaluate_coco(truth, [], task, backend=backend)
    assert figures.stats["AP"] == figures.stats["AR100"] == 0
    assert math.isnan(figures.per_class[-1].ap)  # the class 90 has no ground truth
    assert any("no detection at all" in note for note in figures.notes)
    figures = evaluate_coco(truth | {"annotations": []}, results, task, backend=backend)
    assert all(math.isnan(value) for value in figures.stats.values())
    assert any("all figures are NaN" in note for note in figures.notes)
    crowds = [one | {"iscrowd": 1} for one in truth["annotations"] if one["iscrowd"]]
    figures = evaluate_coco(truth | {"annotations": crowds}, results, task, backend=backend)
    assert math.isnan(figures.stats["AP"])
    assert figures.objects == 0


def test_nan_is_explained(backend):
    truth, results = made_up(3)
    large = [one for one in truth["annotations"] if one["area"] <= 96**2]
    figures = evaluate_coco(truth | {"annotations": large}, results, "bbox", backend=backend)
    notes = " ".join(figures.notes)
    assert "no ground truth (crowds do not count) of class 90 in the ground truth" in notes
    assert "APl is NaN: no ground truth of an area above 96 x 96" in notes
    assert "APs" not in notes
    assert figures.as_json()["figures"]["APl"] is None
    json.dumps(figures.as_json(), allow_nan=False)


def test_classes_in_ascending_order_of_ids(backend):
    truth, results = made_up(4)
    figures = evaluate_coco(truth, results, "bbox", backend=backend)
    assert [one.category_id for one in figures.per_class] == [2, 5, 11, 90]
    evaluation = official(truth, results, "bbox")
    for k, one in enumerate(figures.per_class[:3]):
        theirs = evaluation.eval["precision"][:, :, k, 0, -1]
        assert one.ap == theirs.mean() * 100
        assert one.ap50 == theirs[0].mean() * 100
        assert one.ap75 == theirs[5].mean() * 100
    counted = [a for a in truth["annotations"] if a["category_id"] == 2 and not a["iscrowd"]]
    assert figures.per_class[0].objects == len(counted)


def test_only_some_images_and_classes(backend):
    truth, results = made_up(5)
    chosen = GroundTruth.of(truth, image_ids=[20, 1], category_ids=[5, 2])
    figures = evaluate_coco(chosen, results, "segm", backend=backend)
    part = {
        "images": [i for i in truth["images"] if i["id"] in (1, 20)],
        "categories": [c for c in truth["categories"] if c["id"] in (2, 5)],
        "annotations": [
            a for a in truth["annotations"] if a["image_id"] in (1, 20) and a["category_id"] < 11
        ],
    }
    found = [r for r in results if r["image_id"] in (1, 20) and r["category_id"] in (2, 5)]
    assert_official(figures, official(part, found, "segm"))
    with pytest.raises(UsageError, match="no image with the id 4"):
        GroundTruth.of(truth, image_ids=[4])


def test_ids_that_coco_s_code_miscounts(backend):
    """An annotation with the id 0, or two with one id, count like any other; a note says so."""
    truth, results = made_up(6)
    for number, change in enumerate((lambda i: i, lambda i: i // 2 + 1)):
        odd = copy.deepcopy(truth)
        for i, one in enumerate(odd["annotations"]):
            one["id"] = change(i)
        figures = evaluate_coco(odd, results, "bbox", backend=backend)
        assert_official(figures, official(truth, results, "bbox"))
        assert any("id 0, or ids that are there more than once" in n for n in figures.notes), number
        theirs = official(odd, results, "bbox").eval["precision"]
        assert not np.array_equal(figures.precision, theirs)
    assert not evaluate_coco(truth, results, "bbox", backend=backend).notes[1:]


def test_text_ids(backend):
    truth, results = made_up(7)
    for one in truth["annotations"] + results:
        one["image_id"] = f"{one['image_id']:03}"
    for one in truth["images"]:
        one["id"] = f"{one['id']:03}"
    figures = evaluate_coco(truth, results, "bbox", backend=backend)
    assert_official(figures, official(*made_up(7), "bbox"))


def test_sigmas_of_another_skeleton(backend):
    truth, results = made_up(8, keypoints=5)
    sigmas = (0.05, 0.1, 0.02, 0.2, 0.1)
    figures = evaluate_coco(truth, results, "keypoints", sigmas=sigmas, backend=backend)
    assert_official(figures, official(truth, results, "keypoints", sigmas=sigmas))
    assert any("sigmas were given" in note for note in figures.notes)
    with pytest.raises(DataError, match="5 keypoints an object.*17 sigmas.*OKS_SIGMAS"):
        evaluate_coco(truth, results, "keypoints", backend=backend)
    with pytest.raises(DataError, match="another kind of object"):
        evaluate_coco(truth, made_up(8, keypoints=4)[1], "keypoints", backend=backend)
    with pytest.raises(UsageError, match="numbers above 0"):
        evaluate_coco(truth, results, "keypoints", sigmas=(0.1,) * 4 + (0.0,), backend=backend)


def test_the_ground_truth_and_the_detections_are_left_alone(backend):
    truth, results = made_up(9, keypoints=17)
    before = copy.deepcopy((truth, results))
    for task in ("bbox", "segm", "keypoints", "boundary"):
        evaluate_coco(truth, results, task, backend="auto" if task == "boundary" else backend)
    assert (truth, results) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": None}, "annotation 100 has no area"),
        ({"iscrowd": 2}, "annotation 100 has an iscrowd"),
        ({"bbox": None}, "annotation 100 has no bbox"),
        ({"segmentation": None}, "annotation 100 has no mask; .*--tasks bbox"),
        ({"segmentation": []}, "annotation 100 has no mask"),
        ({"segmentation": [["a"] * 3]}, "annotation 100 has a mask that COCO's tools cannot read"),
        (
            {"segmentation": {"size": [W, H], "counts": [W * H]}},
            r"annotation 100 has a mask of the size \[80, 60\], its image is \[60, 80\]",
        ),
        ({"segmentation": {"size": [H, W], "counts": [5, 6]}}, "do not add up"),
        ({"segmentation": {"size": [H, W], "counts": "0"}}, "do not add up"),
    ],
)
@pytest.mark.parametrize("from_file", [True, False])
def test_broken_annotations_are_named(tmp_path, change, message, from_file):
    truth, results = made_up(0)
    truth["annotations"][0].update(change)
    if change.get("area", 0) is None:
        del truth["annotations"][0]["area"]
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(truth))
    with pytest.raises(DataError, match=message):
        evaluate_coco(path if from_file else truth, results, "segm")


def test_a_test_set_has_no_figures():
    truth, results = made_up(0)
    del truth["annotations"]
    with pytest.raises(DataError, match="no annotations .*server"):
        evaluate_coco(truth, results, "bbox")


def test_odd_polygons_are_what_pycocotools_makes_of_them(backend):
    truth, results = made_up(1, crowds=0)
    for one in truth["annotations"][::2]:
        one["segmentation"].append([1.0, 2.0, 30.0, 40.0])  # two points
    figures = evaluate_coco(truth, results, "segm", backend=backend)
    assert_official(figures, official(truth, results, "segm"))


def test_wrong_calls(monkeypatch, caplog):
    truth, results = made_up(0)
    with pytest.raises(UsageError, match="task 'mask'.*bbox, segm"):
        evaluate_coco(truth, results, "mask")
    with pytest.raises(UsageError, match="backend 'fast'"):
        evaluate_coco(truth, results, "bbox", backend="fast")
    with pytest.raises(UsageError, match="three ascending"):
        evaluate_coco(truth, results, "bbox", max_dets=(10, 1, 100))
    with pytest.raises(UsageError, match="boundary"):
        choose_backend("hotcoco", "boundary")
    with pytest.raises(DataError, match="entry 0 .*image_id 4"):
        evaluate_coco(truth, [results[0] | {"image_id": 4}], "bbox")
    monkeypatch.setattr(coco_backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install hotcoco"):
        choose_backend("hotcoco", "bbox")
    assert choose_backend("auto", "bbox") == "pycocotools"
    assert "same figures" in caplog.text


def brute_boundary(mask: np.ndarray) -> np.ndarray:
    """Each pixel of the mask whose square neighbourhood reaches out of it."""
    height, width = mask.shape
    far = max(1, round(0.02 * math.hypot(height, width)))
    padded = np.pad(mask, far)
    inner = np.ones_like(mask)
    for dy in range(2 * far + 1):
        for dx in range(2 * far + 1):
            inner &= padded[dy : dy + height, dx : dx + width]
    return mask & ~inner


@pytest.mark.parametrize("seed", range(20))
def test_the_boundary_of_a_mask(seed):
    r = np.random.default_rng(seed)
    height, width = r.integers(1, 150, 2)
    coarse = r.random((height // 12 + 1, width // 12 + 1)) < 0.6
    mask = np.kron(coarse, np.ones((12, 12), bool))[:height, :width]
    assert (
        mask_boundary(rle_of(mask, text=False))["counts"]
        == rle_of(brute_boundary(mask), text=False)["counts"]
    )


def test_boundary_figures_take_the_smaller_iou():
    def square(side: int) -> np.ndarray:
        mask = np.zeros((200, 200), bool)
        mask[20 : 20 + side, 30 : 30 + side] = True
        return mask

    one, other = square(100), square(97)
    truth = {
        "images": [{"id": 1, "height": 200, "width": 200}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1e4,
             "bbox": [30, 20, 100, 100], "segmentation": rle_of(one)}
        ],
    }  # fmt: skip
    result = {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": rle_of(other)}
    mask_iou = (one & other).sum() / (one | other).sum()
    a, b = brute_boundary(one), brute_boundary(other)
    boundary_iou = (a & b).sum() / (a | b).sum()
    assert 0.5 < boundary_iou < mask_iou - 0.1
    for task, iou in (("segm", mask_iou), ("boundary", boundary_iou)):
        figures = evaluate_coco(truth, [result], task)
        thresholds = np.linspace(0.5, 0.95, 10)
        assert figures.stats["AP"] == pytest.approx(10 * (thresholds <= iou).sum()), task
    # A crowd takes what is inside of it, wherever the boundaries are.
    truth["annotations"].append(
        truth["annotations"][0] | {"id": 2, "iscrowd": 1, "segmentation": rle_of(square(150))}
    )
    inside = result | {"segmentation": rle_of(square(60)), "score": 1.0}
    alone = evaluate_coco(truth, [result], "boundary")
    both = evaluate_coco(truth, [inside, result], "boundary")
    assert both.stats["AP"] == alone.stats["AP"] > 0


def perturbed(annotations: list[dict], sizes: dict, seed: int) -> list[dict]:
    """Detections near the ground truth: moved boxes and masks, wrong classes, doubles."""
    r = np.random.default_rng(seed)
    classes = sorted({one["category_id"] for one in annotations})
    results = []
    for one in annotations:
        for _ in range(r.integers(0, 3)):
            height, width = sizes[one["image_id"]]
            shift = r.integers(-6, 7, 2)
            mask = np.roll(one["mask"], shift, (0, 1)) if r.random() < 0.7 else one["mask"]
            box = np.array(one["bbox"]) + r.normal(0, 3, 4)
            results.append(
                {
                    "image_id": one["image_id"],
                    "category_id": one["category_id"] if r.random() < 0.8 else r.choice(classes),
                    "bbox": [*box[:2].tolist(), *np.maximum(box[2:], 1).tolist()],
                    "score": float(np.round(r.random(), 2)),
                    "segmentation": rle_of(mask),
                }
            )
    return [one | {"category_id": int(one["category_id"])} for one in results]


def test_real_images(coco_images):
    path = coco_images / "coco" / "annotations" / "instances_val2017.json"
    truth = json.loads(path.read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(str(path))
    annotations = [a | {"mask": api.annToMask(a).astype(bool)} for a in truth["annotations"]]
    exact = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"],
         "score": 1.0, "segmentation": rle_of(a["mask"])}
        for a in annotations if not a["iscrowd"]
    ]  # fmt: skip
    for task in ("bbox", "segm"):
        figures = evaluate_coco(path, exact, task)
        assert figures.stats["AP"] == pytest.approx(100)
        assert figures.stats["AR100"] == pytest.approx(100)
        # Crowds ignore what lies in them, they are not to be found.
        crowds = [one | {"score": 0.5} for one in exact[:1]]
        for a in annotations:
            if a["iscrowd"]:
                crowds.append(exact[0] | {key: a[key] for key in ("image_id", "category_id")}
                              | {"bbox": a["bbox"], "segmentation": rle_of(a["mask"])})  # fmt: skip
        figures = evaluate_coco(path, exact + crowds[1:], task)
        assert figures.stats["AP"] == pytest.approx(100)
    for seed in range(5):
        results = perturbed(annotations, sizes, seed)
        for task in ("bbox", "segm"):
            figures = evaluate_coco(path, results, task)
            assert_official(figures, official(truth, results, task))
            assert 5 < figures.stats["AP"] < 95


def test_report():
    truth, results = made_up(0)
    truth["categories"] += [
        {"id": i, "name": f"very long class name number {i}"} for i in range(200, 276)
    ]
    figures = [evaluate_coco(truth, results, task) for task in ("bbox", "segm")]
    text = summary_text(figures)
    assert text.index("bbox") < text.index("segm")
    assert f"{figures[1].stats['AP50']:.2f}" in text
    assert text.count("- no ground truth") == 1  # said once for both tasks
    assert "and 67 more" in text
    table = classes_text(figures[0])
    assert max(len(line) for line in table.splitlines()) <= 110
    assert len(table.splitlines()) <= 2 + 80
    for one in figures[0].per_class[:3]:
        assert f"{one.name}" in table
        assert f"{one.ap:.2f}" in table
    assert "NaN" in table

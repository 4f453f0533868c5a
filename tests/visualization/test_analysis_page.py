"""The page of `analyze`: its numbers are those of the analyses, its text is safe, it needs nothing.

Results are made by hand: of each kind of error there is one.
"""

from __future__ import annotations

import json
import math
import re

import cv2
import numpy as np
import pytest
from browser import Browser, _Parser, elements, without_scripts
from pycocotools import mask as coco_mask

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.evaluation import analysis
from mask_rcnn_ext.evaluation.coco_metrics import evaluate_coco
from mask_rcnn_ext.evaluation.coco_truth import GroundTruth
from mask_rcnn_ext.visualization.analysis_charts import (
    Dot,
    Line,
    confusion_map,
    curve_chart,
    strip,
    tag,
)
from mask_rcnn_ext.visualization.analysis_numbers import Settings, analyse
from mask_rcnn_ext.visualization.analysis_page import (
    MOST_MAPPED,
    _map,
    analysis_page,
    decimals,
    part_name,
)
from mask_rcnn_ext.visualization.analysis_paired import verdict
from mask_rcnn_ext.visualization.analysis_pictures import ImageScores, PairMaker, draw_extremes

SIZE = (120, 160)
EVIL = "<script>alert('x')</script>&\"'"
NAMES = ("cat", EVIL, "never")  # ids 1, 2, 3; of the last there is no object


def _rle(box, holes=False):
    x, y, w, h = box
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    if holes:
        mask[y + 2 : y + h - 2, x + 2 : x + w - 2] = 0
    rle = coco_mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _found(image, category, box, score, holes=False):
    return {"image_id": image, "category_id": category, "bbox": [float(v) for v in box],
            "score": score, "segmentation": _rle(box, holes)}  # fmt: skip


def _truth_of(objects):
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]}
            for i in range(1, 6)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
        "annotations": [
            {"id": n + 1, "image_id": image, "category_id": category, "bbox": list(box),
             "area": box[2] * box[3], "iscrowd": crowd, "segmentation": _rle(box)}
            for n, (image, category, box, crowd) in enumerate(objects)
        ],
    }  # fmt: skip


OBJECTS = [
    (1, 1, (10, 10, 30, 30), 0),
    (1, 2, (60, 10, 40, 40), 0),
    (2, 1, (10, 10, 20, 20), 0),
    (2, 1, (50, 50, 50, 60), 0),
    (2, 1, (110, 10, 40, 40), 1),
    (3, 2, (20, 20, 100, 98), 0),
    (3, 1, (0, 0, 12, 12), 0),
    (4, 2, (5, 5, 92, 92), 0),  # medium, but not by much
]
RESULTS = [
    _found(1, 1, (10, 10, 30, 30), 0.9),
    _found(1, 1, (11, 10, 30, 30), 0.7),  # duplicate
    _found(1, 1, (60, 10, 40, 38), 0.88),  # wrong class
    _found(2, 1, (10, 10, 20, 20), 0.65, holes=True),  # box right, mask wrong
    _found(2, 1, (70, 50, 50, 60), 0.6),  # misplaced
    _found(2, 2, (30, 70, 50, 40), 0.55),  # wrong class and misplaced
    _found(3, 2, (20, 20, 100, 95), 0.95),
    _found(4, 2, (5, 5, 92, 60), 0.85),  # right at IoU 0.5, not at 0.75
    _found(5, 1, (80, 80, 20, 20), 0.3),  # nothing there, and the image is empty
    _found(5, 3, (20, 80, 20, 20), 0.9),
]


@pytest.fixture
def made(tmp_path):
    """Analyse and make the page: (report, page's text, analyses, truth)."""
    for image in range(1, 6):
        noise = np.random.default_rng(image).integers(0, 255, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{image}.png"), noise)

    def make(results=RESULTS, objects=OBJECTS, tasks=("segm",), other=None, **options):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(_truth_of(objects)))
        truth = GroundTruth.of(path)
        found, pictures = [], []
        for task in tasks:
            settings = Settings(task, draws=options.get("draws", 20), **options.get("more", {}))
            one = analyse(truth, results, settings, other=other, names=("new", "old"))
            drawn = draw_extremes(one, truth.source, str(tmp_path), 2, lambda *_: None)
            one.numbers["pictures"] = drawn.numbers
            found.append(one)
            pictures.append([drawn.worst, drawn.best])
        report = {
            "made_by": "mask-rcnn-ext analyze", "dataset": "made", "annotations": "truth.json",
            "predictions": EVIL, "compared_with": None if other is None else "old",
            "max_dets": 100, "draws": 20, "seed": 0, "notes": [EVIL],
            "tasks": [one.numbers for one in found],
        }  # fmt: skip
        return report, analysis_page(report, pictures).decode(), found, truth

    return make


def table(html: str, identity: str) -> list[list[str]]:
    """Values of a table's body: `data-value`, or the text where there is none."""
    parser = _Parser()
    parser.feed(html)
    rows: dict[int, list[str]] = {}
    for cell in parser.found:
        row = cell.parent if cell.name in ("th", "td") else None
        body = row.parent if row is not None else None
        owner = body.parent if body is not None else None
        if owner is None or owner.get("id") != identity or body is None or body.name != "tbody":
            continue
        rows.setdefault(id(row), []).append(cell.get("data-value", cell.text.strip()))
    return list(rows.values())


def values(row: list[str]) -> list[float]:
    return [float(text) if text else math.nan for text in row]


@pytest.mark.parametrize("task", ["segm", "bbox"])
def test_the_figures_are_coco_s(made, task):
    report, html, _, truth = made(tasks=(task,))
    official = evaluate_coco(truth, RESULTS, task)
    rows = table(html, f"{task}-figure-table")
    assert [row[0] for row in rows] == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    for name, _, value, *_ in rows:
        assert float(value) == pytest.approx(official.stats[name], abs=1e-9, nan_ok=True)
    by_class = {one.name: one for one in official.per_class}
    classes = table(html, f"{task}-class-table")
    assert len(classes) == 3
    for name, objects, _, *aps in classes:
        one = by_class[name]
        assert int(objects) == one.objects
        expected = [one.ap, one.ap50, one.ap75]
        assert values(aps[:3]) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert [note for note in report["tasks"][0]["notes"] if "never" in note]


def test_intervals_and_operating_points_are_the_functions(made):
    _, html, (one,), _ = made()
    records = one.records
    first = table(html, "segm-figure-table")[0]
    interval = analysis.bootstrap_ap(records, 20, seed=0)
    assert values(first[-3:-1]) == pytest.approx([100 * interval.low, 100 * interval.high])
    curves = analysis.precision_recall_curves(records)
    best = curves.pooled.best()
    shown = {b["data-key"]: float(b["data-value"]) for b in elements(html, "b") if "data-key" in b}
    assert shown["score"] == best.score == one.score
    expected = [best.precision, best.recall, best.f1]
    assert [shown[k] / 100 for k in ("precision", "recall", "f1")] == pytest.approx(expected)
    assert "chosen on these same images" in html
    for name, *_, score, precision, recall, f1 in table(html, "segm-class-table"):
        point = curves.categories[NAMES.index(name)].best()
        expected = [point.score, point.precision, point.recall, point.f1]
        shares = [value / 100 for value in values([precision, recall, f1])]
        assert [values([score])[0], *shares] == pytest.approx(expected, nan_ok=True)


def test_the_lowest_ap_comes_first_and_none_last(made):
    _, html, _, _ = made()
    aps = values([row[3] for row in table(html, "segm-class-table")])
    assert math.isnan(aps[-1])
    assert aps[:-1] == sorted(aps[:-1])


def test_errors_are_counted_and_mended(made):
    report, html, (one,), _ = made()
    errors = analysis.error_report(one.comparison)
    rows = table(html, "segm-error-table")
    kinds = [kind["kind"] for kind in report["tasks"][0]["errors"]["kinds"]]
    assert len(rows) == len(kinds) == 9
    for kind, row in zip(kinds, rows, strict=True):
        if kind in errors.counts:
            assert int(row[1]) == errors.counts[kind].sum()
        assert float(row[2]) == pytest.approx(100 * errors.mended_ap[kind])
        assert float(row[3]) == pytest.approx(100 * (errors.mended_ap[kind] - errors.ap))
    counts = {kind: row[1] for kind, row in zip(kinds, rows, strict=True)}
    assert [counts[k] for k in ("duplicate", "classification", "mask", "localisation", "both")] == [
        "1", "1", "1", "1", "1"
    ]  # fmt: skip
    assert int(counts["background"]) == 2
    assert "box right, mask wrong" in html
    _, boxes, _, _ = made(tasks=("bbox",))
    assert "box right, mask wrong" not in boxes


def test_confusions_are_the_matrix_s(made):
    report, html, (one,), _ = made()
    counts = analysis.confusion_matrix(one.comparison, one.score, 0.5)
    names = [*NAMES, None]
    cells = report["tasks"][0]["confusion"]["cells"]
    built = np.zeros_like(counts)
    for cell in cells:
        built[names.index(cell["true"]), names.index(cell["predicted"])] = cell["count"]
    assert (built == counts).all()
    confused = table(html, "segm-confused")
    assert [row[:3] for row in confused] == [[EVIL, "cat", "1"]]
    assert float(confused[0][3]) == pytest.approx(100 / 3)  # of its three objects
    assert {row[0]: int(row[1]) for row in table(html, "segm-missed")} == {
        name: n for name, n in zip(NAMES, counts[:-1, -1].tolist(), strict=True) if n
    }
    assert {row[0]: int(row[1]) for row in table(html, "segm-invented")} == {
        name: n for name, n in zip(NAMES, counts[-1, :-1].tolist(), strict=True) if n
    }


def test_breakdowns_and_empty_images_are_the_functions(made):
    report, html, (one,), _ = made()
    parts = {
        "objects_in_the_image": analysis.by_count(one.records, (1, 2, 5, 10, 20)),
        "occlusion": analysis.by_occlusion(one.comparison),
        "area": analysis.by_area(one.comparison),
    }
    for kind, expected in parts.items():
        rows = table(html, f"segm-{kind}")
        assert len(rows) == len(expected)
        for row, part in zip(rows, expected, strict=True):
            shares = [100 * value for value in (part.ap, part.ap50, part.ap75)]
            assert values(row[-5:-2]) == pytest.approx(shares, nan_ok=True)
            assert [int(v) for v in row[-2:]] == [part.images, part.objects]
    rows = table(html, "segm-negative-table")
    scores = [float(row[0]) for row in rows]
    expected = analysis.negative_images(one.comparison, scores)
    assert one.score in scores
    assert [int(row[2]) for row in rows] == expected.detections.sum(axis=1).tolist()
    assert rows[0][1:] == ["1", "2", "2.0"]
    assert report["tasks"][0]["negatives"]["classes"] == [{"name": "never", "detections": 1}]


def test_the_page_holds_its_numbers(made):
    report, html, _, _ = made(tasks=("segm", "bbox"))
    held = next(one for one in elements(html, "script") if one.get("id") == "numbers")
    assert json.loads(held.text) == report
    points = report["tasks"][0]["curves"]["pooled"]
    assert [points["best"]["score"], points["best"]["f1"]] in [
        [point[0], point[3]] for point in points["points"]
    ]


def test_paired(made):
    worse = [{**one, "score": 1 - one["score"]} for one in RESULTS[:-4]]
    report, html, (one,), truth = made(other=worse)
    rival = analysis.match_detections(analysis.compare(truth.source, worse))
    test = analysis.paired_test(rival, one.records, draws=20)
    row = table(html, "segm-paired-table")[0]
    own, other, difference, _, low, high, p = row[1:]
    expected = 100 * np.array([test.difference.value, test.difference.low, test.difference.high])
    assert values([difference, low, high]) == pytest.approx(expected)
    assert float(p) == test.p_value
    assert float(own) - float(other) == pytest.approx(float(difference))
    says = verdict(test, "AP", ("new", "old"), 20)
    assert report["tasks"][0]["paired"]["figures"][0]["says"] == says
    assert "new has" in says
    assert "more than old" in says
    _, same, _, _ = made(other=RESULTS)
    assert "the same AP on every set of images" in same


@pytest.mark.parametrize(
    ("low", "high", "p", "ends"),
    [
        (0.01, 0.03, 0.01, "It is better by more than the choice of these images explains."),
        (-0.01, 0.03, 0.01, "That is on the border: more images would decide."),
        (0.01, 0.03, 0.2, "That is on the border: more images would decide."),
        (-0.01, 0.05, 0.2, "These images do not tell the two apart."),
    ],
)
def test_what_a_paired_test_says(low, high, p, ends):
    interval = analysis.Interval(0.02, low, high, 0.95, 0.01, 0.0, 100)
    says = verdict(analysis.PairedTest(interval, p), "AP", ("new", "old"), 100)
    assert says.startswith("new has 2.0 AP more than old")
    assert says.endswith(ends)


def test_names_stay_text(made, tmp_path):
    _, html, _, _ = made()
    scripts = elements(html, "script")
    assert [one.get("id") for one in scripts] == ["numbers", None]
    assert "<script>alert" not in html.replace(scripts[0].text, "")
    assert "<script>alert" not in scripts[0].text.replace("\\u003c", "")
    assert [one for one in elements(html, "td", "name") if one.text == EVIL]
    page = tmp_path / "page.html"
    page.write_text(html)
    assert "<script>alert(" not in Browser(tmp_path).dom(page)


def test_no_predictions(made):
    report, html, _, _ = made(results=[])
    assert "there is no detection at all" in html
    assert "nothing right was found" in html
    numbers = report["tasks"][0]
    assert numbers["figures"][0]["value"] == 0
    assert numbers["operating_point"]["score"] is None
    assert numbers["pictures"]["best"] == []
    assert len(numbers["pictures"]["worst"]) == 2
    rows = table(html, "segm-missed")
    assert [(row[0], int(row[1]), float(row[2])) for row in rows] == [
        ("cat", 4, 100),
        (EVIL, 3, 100),
    ]


def test_no_ground_truth(made):
    report, html, _, _ = made(objects=[])
    numbers = report["tasks"][0]
    assert numbers["figures"][0]["value"] is None
    assert "all figures are NaN" in html
    assert "there are no objects" in html
    assert numbers["curves"]["classes"] == []
    assert table(html, "segm-negative-table")[0][1:3] == ["5", str(len(RESULTS))]
    often = [(one["name"], one["detections"]) for one in numbers["negatives"]["classes"]]
    assert often == [("cat", 5), (EVIL, 3), ("never", 1)]
    nothing, _, _, _ = made(objects=[], results=[])
    assert nothing["tasks"][0]["confusion"]["cells"] == []


def test_chosen_classes(made):
    report, _, _, _ = made(more={"classes": (EVIL, "never")})
    drawn = report["tasks"][0]["curves"]["classes"]
    assert [one["name"] for one in drawn] == [EVIL, "never"]
    assert drawn[1]["points"] == []
    with pytest.raises(UsageError, match="there is no class 'dog'; the ground truth has cat"):
        made(more={"classes": ("dog",)})


def test_images_are_ranked_by_their_f1(made):
    _, _, (one,), _ = made()
    scores = ImageScores(one.records, 0.5)
    assert scores.right.tolist() == [1, 0, 1, 1, 0]
    assert scores.wrong.tolist() == [2, 3, 0, 0, 1]
    assert scores.missed.tolist() == [1, 2, 1, 0, 0]
    assert scores.f1.tolist() == pytest.approx([2 / 5, 0, 2 / 3, 1, 0])
    assert scores.worst(9) == [1, 4, 0, 2]
    assert scores.best(9) == [3, 2, 0]


def test_pictures_show_truth_and_prediction_and_say_what_is_broken(made, tmp_path):
    _, html, (one,), truth = made()
    figures = elements(html, "figure", "worst") + elements(html, "figure", "best")
    assert [figure["data-image"] for figure in figures] == ["2", "5", "4", "3"]
    images = elements(html, "img")
    assert len(images) == 8
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in images)
    assert len({image["src"] for image in images}) == 8
    make = PairMaker(one, truth.source, str(tmp_path))
    labels = [[drawn.label for drawn in make._objects(image)] for image in range(4)]
    assert labels[0] == ["cat", f"{EVIL} - missed"]
    assert labels[1] == ["cat - missed", "cat - missed", "cat (crowd)"]
    assert labels[3] == [EVIL]
    found = [drawn.label for drawn in make._detections(0)]
    assert found == ["cat 0.90", "cat 0.88 - wrong class"]  # the duplicate scores less than 0.85
    assert make._detections(3)[0].corner == (5, 5)
    assert make(0)["note"] == ""
    (tmp_path / "1.png").write_bytes(b"no picture")
    assert "does not decode" in make(0)["note"]
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((50, 70, 3), np.uint8))
    assert make(0)["note"] == "the file is 70 × 50 pixels, the annotations say 160 × 120"
    (tmp_path / "1.png").unlink()
    assert make(0)["note"] == "there is no such file"


def test_with_and_without_scripts(made, tmp_path):
    _, html, _, _ = made(tasks=("segm", "bbox"), other=RESULTS[:3])
    page = tmp_path / "page.html"
    page.write_text(html)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", html)  # nothing to load
    browser = Browser(tmp_path)
    shown, plain = browser.dom(page), browser.dom(without_scripts(page))
    assert 'class="no-script"' in plain
    assert 'class="no-script"' not in shown
    names = {one["id"] for one in elements(html, "table") if "id" in one}
    assert {"segm-class-table", "bbox-class-table", "segm-paired-table"} <= names
    for name in names:
        assert table(shown, name) == table(plain, name) == table(html, name)
    picture = browser.screenshot(without_scripts(page), size=(1200, 900))
    assert picture.std() > 5


def test_a_click_sorts(made, tmp_path):
    _, html, _, _ = made()
    head = "document.querySelectorAll('#segm-class-table th button')"
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    page = tmp_path / "page.html"
    orders = []
    for clicks in (f"{head}[1].click();", f"{head}[1].click();" * 2, f"{head}[6].click();"):
        page.write_text(free.replace("</body>", f"<script>{clicks}</script></body>"))
        rows = table(Browser(tmp_path).dom(page), "segm-class-table")
        orders.append(rows)
    assert [int(row[1]) for row in orders[0]] == [0, 3, 4]
    assert [int(row[1]) for row in orders[1]] == [4, 3, 0]
    scores = values([row[6] for row in orders[2]])
    assert math.isnan(scores[-1])
    assert scores[:2] == sorted(scores[:2])


def test_curve_chart_puts_points_where_they_belong():
    svg = str(
        curve_chart(
            [Line("a<b", [0, 50, 100], [100, 50, 0])],
            x_title="x", y_title="y", label='"l"', mark=(50, 50, "here"),
        )
    )  # fmt: skip
    path = next(one for one in elements(svg, "path", "line"))
    ends = [tuple(map(float, pair.split())) for pair in path["d"][1:].split("L")]
    middle = tuple(np.mean([ends[0], ends[2]], axis=0))
    assert ends[1] == pytest.approx(middle, abs=0.11)
    mark = elements(svg, "circle", "mark")[0]
    assert (float(mark["cx"]), float(mark["cy"])) == pytest.approx(middle, abs=0.11)
    assert ends[0][0] < ends[2][0]
    assert ends[0][1] < ends[2][1]  # y runs down
    assert "a<b" not in svg
    assert 'aria-label="&#34;l&#34;"' in svg


def test_strip_keeps_order_and_leaves_out_what_has_no_value():
    dots = [Dot("low", 10.0), Dot("high", 90.0, 1), Dot("none", None, 2)]
    svg = str(strip(dots, interval=(5.0, 20.0), reference=50.0))
    circles = {one["class"]: float(one["cx"]) for one in elements(svg, "circle")}
    assert list(circles) == ["dot s1", "dot s0"]  # the first one is drawn on top
    assert circles["dot s0"] < 150 < circles["dot s1"]
    assert len(elements(svg, "path", "interval")) == 1
    assert "interval" not in str(strip(dots, interval=(None, None)))


def test_confusion_map_draws_each_count():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 0]])
    svg = str(confusion_map(["a", EVIL], counts, "map"))
    good, bad = elements(svg, "rect", "good"), elements(svg, "rect", "bad")
    assert len(good) == 1
    assert len(bad) == 2
    assert float(good[0]["fill-opacity"]) == pytest.approx(0.15 + 0.85 * 0.75, abs=0.01)
    titles = [one.text for one in elements(svg, "title")]
    assert titles == [
        "a found: 3, 75.0% of the row's 4",
        f"a taken for {EVIL}: 1, 25.0% of the row's 4",
        f"{EVIL} where is nothing: 2, 100.0% of the row's 2",
    ]
    assert float(bad[1]["y"]) > float(bad[0]["y"])
    assert [one.text for one in elements(svg, "text", "count")] == ["3", "1", "2"]


def test_a_map_of_very_many_classes_is_cut():
    classes = [{"category_id": k, "name": f"c{k}"} for k in range(300)]
    cells = [
        {"true": f"c{k}", "true_id": k, "predicted": None, "predicted_id": None, "count": k + 1}
        for k in range(300)
    ]
    drawing, left_out = _map(cells, classes)
    assert left_out == 300 - MOST_MAPPED
    texts = [one.text for one in elements(str(drawing), "text")]
    assert "c299" in texts
    assert "c0" not in texts
    assert _map([], classes) == (None, 0)


def test_tags_and_words():
    assert str(tag("text", "<&", class_="a b", aria_label='"', x=1.0)) == (
        '<text class="a b" aria-label="&#34;" x="1">&lt;&amp;</text>'
    )
    assert decimals(None) == "–"
    assert decimals(-3.14159, 2, True) == "−3.14"
    assert decimals(1234.5) == "1,234.5"
    names = [
        part_name(kind, {"lowest": low, "highest": high})
        for kind, low, high in (
            ("objects_in_the_image", 1.0, 1.0), ("objects_in_the_image", 2.0, 4.0),
            ("objects_in_the_image", 20.0, None), ("occlusion", 0.0, 0.0), ("occlusion", 0.0, 0.1),
            ("occlusion", 0.1, 0.25), ("area", 0.0, 256.0), ("area", 256.0, 1024.0),
            ("area", 1024.0, 1e10),
        )
    ]  # fmt: skip
    assert names == [
        "1", "2 to 4", "20 and more", "not covered", "up to 10%", "10% to 25%", "up to 16²",
        "16² to 32²", "from 32²",
    ]  # fmt: skip

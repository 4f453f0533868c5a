"""Cityscapes' figures: equal to the benchmark's own script, on scenes with everything odd."""

import contextlib
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.cityscapes.labels import THINGS
from mask_rcnn_ext.data.cityscapes.polygons import draw_instance_ids
from mask_rcnn_ext.data.scenes.cityscapes_scene import render_cityscapes_scene
from mask_rcnn_ext.errors import DataError, UsageError
from mask_rcnn_ext.evaluation.cityscapes import cityscapes_figures, match_image
from mask_rcnn_ext.evaluation.cityscapes.distances import read_distances
from mask_rcnn_ext.evaluation.cityscapes.metrics import CLASSES, OVERLAPS
from mask_rcnn_ext.evaluation.cityscapes.runs import count_shared, runs_of_bitmaps, runs_of_rles

SIZE = (120, 150)
SETTINGS = ("minRegionSizes", "distanceThs", "distanceConfs")


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The official script, made to run on this numpy and to leave no files behind."""
    name = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
    module = pytest.importorskip(
        name, reason="the referee: pip install 'mask_rcnn_ext[cityscapes]'", exc_type=ImportError
    )
    if not hasattr(np, "in1d"):  # numpy 2.4 dropped it; the script still calls it
        monkeypatch.setattr(np, "in1d", lambda a, b: np.isin(a, b).ravel(), raising=False)
    monkeypatch.setattr(module.args, "quiet", True)
    monkeypatch.setattr(module.args, "predictionPath", str(tmp_path))
    monkeypatch.setattr(module.args, "distanceAvailable", False)
    for name in ("overlaps", *SETTINGS):
        monkeypatch.setattr(module.args, name, getattr(module.args, name))
    module.setInstanceLabels(module.args)
    monkeypatch.setattr(module.args, "instLabels", module.args.instLabels)
    return module


def official(script, folder, images, distances=None):
    """The script's own array: its matching on files, its figures class by class.

    One setting, class and overlap at a time, because it fails (IndexError) where all of a class's
    predictions are ignored and none of its objects is found; AP is 0 there.
    """
    predictions, truths = [], []
    for number, (ids, found) in enumerate(images):
        truth = folder / f"camelot_{number:06d}_000019_gtFine_instanceIds.png"
        Image.fromarray(ids.astype(np.uint16)).save(truth)
        lines = []
        for index, (mask, label_id, score) in enumerate(found):
            name = f"{number}_{index}.png"
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
            lines.append(f"{name} {label_id} {score!r}\n")
        (folder / f"{number}.txt").write_text("".join(lines))
        truths.append(str(truth))
        predictions.append(str(folder / f"{number}.txt"))
    objects = script.instances2dict(truths, False)
    if distances is not None:
        for truth, known in zip(truths, distances, strict=True):
            for labels in objects[os.path.abspath(truth)].values():
                for one in labels:
                    one["medDist"], one["distConf"] = known.get(one["instID"], (-1, 0.0))
    args = script.args
    args.distanceAvailable = distances is not None
    args.instLabels, args.overlaps = list(CLASSES), OVERLAPS
    matches = script.matchGtWithPreds(predictions, truths, objects, args)
    every = list(zip(*(getattr(args, name) for name in SETTINGS), strict=True))
    ap = np.zeros((len(every) if distances is not None else 1, len(CLASSES), len(OVERLAPS)))
    for s, k, o in np.ndindex(ap.shape):
        choice = ([CLASSES[k]], [OVERLAPS[o]], *([value] for value in every[s]))
        for name, value in zip(("instLabels", "overlaps", *SETTINGS), choice, strict=True):
            setattr(args, name, value)
        with contextlib.suppress(IndexError):
            ap[s, k, o] = script.evaluateMatches(matches, args)[0, 0, 0]
    for name, value in zip(SETTINGS, zip(*every, strict=True), strict=True):
        setattr(args, name, np.array(value))
    args.instLabels, args.overlaps = list(CLASSES), OVERLAPS
    return ap, script.computeAverages(ap, args)


def ours(images, distances=None, rle=False):
    records = []
    for number, (ids, found) in enumerate(images):
        masks = np.array([mask for mask, _, _ in found]).reshape(-1, *ids.shape)
        if rle:
            masks = [encode(mask) for mask, _, _ in found]
        labels, scores = [one[1] for one in found], [one[2] for one in found]
        known = None if distances is None else distances[number]
        records.append(match_image(ids, masks, labels, scores, name=f"n{number}", distances=known))
    return cityscapes_figures(records)


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def blob(rng, size, big=1.0):
    """A box with a round hole, or a whole one, somewhere; parts of it may be cut off."""
    height, width = size
    h, w = (rng.integers(4, 60, 2) * big).astype(int)
    y, x = rng.integers(-8, height - 4), rng.integers(-8, width - 4)
    rows, columns = np.mgrid[:height, :width]
    mask = (rows >= y) & (rows < y + h) & (columns >= x) & (columns < x + w)
    if rng.random() < 0.4:
        radius = min(h, w) * 0.3
        mask &= (rows - y - h / 2) ** 2 + (columns - x - w / 2) ** 2 > radius**2
    return mask


def draw_image(rng, big=1.0):
    """Ids with groups, holes, void regions, ignored classes' objects; and predictions near them."""
    ids = np.full(SIZE, 7)
    for value in (0, 3, 11, 29, *rng.choice([1, 4, 10, 23], 2)):
        ids[blob(rng, SIZE)] = value
    objects = []
    labels = rng.choice([24, 24, 26, 26, 29, 33], rng.integers(0, 9))
    for number, label in enumerate(labels):
        value = label if rng.random() < 0.25 else label * 1000 + number
        mask = blob(rng, SIZE, big)
        ids[mask] = value
        objects.append((mask, int(label)))
    found = []
    for mask, label in objects:
        for _ in range(rng.integers(0, 4)):
            shifted = np.roll(mask, rng.integers(-5, 6, 2), (0, 1))
            if rng.random() < 0.3:
                shifted = (ids >= 24) & mask
            label_id = int(rng.choice([24, 26, 29, 31])) if rng.random() < 0.15 else label
            found.append((shifted, label_id, float(rng.integers(1, 12)) / 12))
    for _ in range(rng.integers(0, 3)):
        found.append((blob(rng, SIZE), int(rng.choice([24, 26, 7])), float(rng.random())))
    if rng.random() < 0.3:
        found.append((np.zeros(SIZE, bool), 24, 0.9))
    return ids, found


def compare(script, folder, images, distances=None, rle=False):
    expected, averages = official(script, folder, images, distances)
    got = ours(images, distances, rle)
    np.testing.assert_allclose(got.ap, expected, rtol=0, atol=1e-9)
    named = {"AP": "allAp", "AP50": "allAp50%"}
    if distances is not None:
        named |= {"AP50m": "allAp50m", "AP100m": "allAp100m", "AP50_50m": "allAp50%50m"}
    assert got.averages() == pytest.approx(
        {ours: averages[theirs] for ours, theirs in named.items()}, abs=1e-9, nan_ok=True
    )
    for name in CLASSES:
        want = {
            ours: averages["classes"][name][theirs.replace("allAp", "ap")]
            for ours, theirs in named.items()
        }
        assert got.of_class(name) == pytest.approx(want, abs=1e-9, nan_ok=True)
    return got


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_official_script(script, tmp_path, seed):
    rng = np.random.default_rng(seed)
    images = [draw_image(rng) for _ in range(7)]
    images += [(np.full(SIZE, 7), []), (np.full(SIZE, 7), [(blob(rng, SIZE), 26, 0.5)])]
    got = compare(script, tmp_path, images, rle=bool(seed % 2))
    assert 0.02 < got.averages()["AP"] < 0.9


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_official_script_with_distances(script, tmp_path, seed):
    rng = np.random.default_rng(seed)
    images = [draw_image(rng, big=1.5) for _ in range(7)]
    distances = [
        {
            int(value): (float(rng.choice([20, 50, 70, 120])), float(rng.choice([0.3, 0.5, 0.9])))
            for value in np.unique(ids)
            if rng.random() < 0.95
        }
        for ids, _ in images
    ]
    got = compare(script, tmp_path, images, distances)
    assert got.ap.shape == (3, 8, 10)
    assert len({round(value, 6) for value in got.averages().values()}) >= 4


def test_equals_the_official_script_on_generated_streets(script, tmp_path):
    rng = np.random.default_rng(0)
    images = []
    for index in range(6):
        scene = render_cityscapes_scene(1, index, (128, 192), "val")
        ids = draw_instance_ids(scene.objects, 128, 192)
        found = []
        for value in np.unique(ids[ids >= 24]):
            mask = np.roll(ids == value, rng.integers(-2, 3, 2), (0, 1))
            found.append((mask, int(value) // 1000 or int(value), float(rng.random())))
        images.append((ids, found))
    assert compare(script, tmp_path, images).averages()["AP"] > 0.2


def square(y, x, side, size=SIZE):
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_by_hand():
    ids = np.zeros(SIZE, int)
    ids[square(0, 0, 20)] = 24001
    ids[square(0, 40, 20)] = 24002
    ids[square(0, 80, 9)] = 24003  # 81 pixels: too small to count
    ids[square(40, 0, 40)] = 24  # a group
    found = [
        (square(0, 0, 20), 24, 0.9),  # right
        (square(0, 0, 20), 24, 0.8),  # the same again: wrong
        (square(0, 80, 9), 24, 0.7),  # finds the small one
        (square(42, 2, 10), 24, 0.95),  # in the group
        (square(40, 60, 20), 24, 0.99),  # on unlabeled pixels
    ]
    got = ours([(ids, found)])
    # Thresholds 0.8: precision 1/2, recall 1/2; 0.9: 1 and 1/2; then the closing point 1 and 0.
    # Steps: (1/2 - 1/2) / 2, (1/2 - 0) / 2, (1/2 - 0) / 2.
    assert got.averages() == {"AP": 0.5, "AP50": 0.5}
    assert got.of_class("person")["AP"] == 0.5
    assert np.isnan(got.of_class("car")["AP"])


@pytest.mark.parametrize(("side", "counts"), [(9, False), (10, True)])
def test_an_object_of_exactly_100_pixels_counts(side, counts):
    ids = np.full(SIZE, 7)
    ids[square(0, 0, side)] = 24001
    ap = ours([(ids, [(square(0, 0, side), 24, 0.9)])]).averages()["AP"]
    assert ap == 1.0 if counts else np.isnan(ap)


def test_by_distance_an_object_needs_1000_pixels_and_a_known_distance():
    ids = np.full(SIZE, 7)
    ids[:25, :40], ids[:27, 50:87] = 24001, 26001  # 1000 and 999 pixels
    found = [(ids == 24001, 24, 0.9), (ids == 26001, 26, 0.9)]
    known = {24001: (50.0, 0.5), 26001: (50.0, 0.5)}
    near = ours([(ids, found)], [known])
    assert near.of_class("person")["AP50m"] == 1.0
    assert np.isnan(near.of_class("car")["AP50m"])
    unknown = ours([(ids, found)], [{}])
    assert unknown.of_class("person")["AP"] == 1.0
    assert np.isnan(unknown.of_class("person")["AP100m"])


def test_predictions_that_say_nothing_are_left_out():
    ids = np.full(SIZE, 7)
    masks = np.stack([square(0, 0, 20), np.zeros(SIZE, bool), square(0, 0, 20)])
    record = match_image(ids, masks, [26, 24, 11], [0.5, 0.5, 0.5])
    assert record.prediction_pixels.tolist() == [400]
    assert record.prediction_class.tolist() == [CLASSES.index("car")]


def test_no_images_no_objects_no_predictions():
    assert np.isnan(cityscapes_figures([]).ap).all()
    street = np.full(SIZE, 7)
    assert np.isnan(ours([(street, [])]).averages()["AP"])
    assert np.isnan(ours([(street, [(square(0, 0, 20), 24, 0.5)])]).averages()["AP"])
    person = np.full(SIZE, 7)
    person[square(0, 0, 20)] = 24001
    assert ours([(person, [])]).averages()["AP"] == 0.0
    # All of the class's predictions are ignored and nothing is found: the script fails there.
    person[square(40, 40, 20)] = 0
    assert ours([(person, [(square(40, 40, 20), 24, 0.5)])]).averages()["AP"] == 0.0


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_shared_pixels(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    count = data.draw(st.integers(0, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    ids = rng.choice([0, 7, 24, 24001, 33012], (height, width))
    masks = rng.random((count, height, width)) < data.draw(st.sampled_from([0, 0.2, 0.7, 1]))
    rles = [encode(mask) for mask in masks]
    as_list = [{"size": [height, width], "counts": plain(mask)} for mask in masks]
    for runs in (
        runs_of_bitmaps(masks),
        runs_of_rles(rles, ids.shape, "n"),
        runs_of_rles(as_list, ids.shape, "n"),
    ):
        values, pixels, shared = count_shared(runs, ids)
        assert values.tolist() == sorted(set(ids.ravel().tolist()))
        assert pixels.tolist() == [(ids == value).sum() for value in values]
        assert shared.shape == (count, len(values))
        for mask, row in zip(masks, shared, strict=True):
            assert row.tolist() == [(mask & (ids == value)).sum() for value in values]
        assert runs.areas().tolist() == [mask.sum() for mask in masks]


def plain(mask):
    """COCO's run lengths as a list, one pixel at a time."""
    counts, value = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def test_bad_input_names_the_image():
    ids = np.full(SIZE, 7)
    mask = square(0, 0, 20)[None]
    with pytest.raises(DataError, match=r"n1: masks are 9x9 .*120x150"):
        match_image(ids, np.zeros((1, 9, 9), bool), [24], [0.5], name="n1")
    with pytest.raises(DataError, match=r"n1, mask 0: .*size \[9, 9\]"):
        match_image(ids, [encode(np.ones((9, 9)))], [24], [0.5], name="n1")
    damaged = {**encode(mask[0]), "counts": b"11"}
    with pytest.raises(DataError, match="n1, mask 0: .*damaged"):
        match_image(ids, [damaged], [24], [0.5], name="n1")
    with pytest.raises(DataError, match="label id 99"):
        match_image(ids, mask, [99], [0.5])
    with pytest.raises(DataError, match="prediction 0 is nan"):
        match_image(ids, mask, [24], [float("nan")])
    with pytest.raises(DataError, match="1 masks, 2 labels"):
        match_image(ids, mask, [24, 24], [0.5])
    with pytest.raises(DataError, match="the value 65535"):
        match_image(np.full(SIZE, 65535), mask, [24], [0.5])
    some = [match_image(ids, [], [], [], name=n, distances=d) for n, d in (("a", {}), ("b", None))]
    with pytest.raises(UsageError, match="not for b"):
        cityscapes_figures(some)


def test_distances_are_read_from_the_benchmarks_file(tmp_path):
    path = tmp_path / "gtInstances.json"
    one = {"instID": 24001, "labelID": 24, "pixelCount": 9, "medDist": 31.5, "distConf": 0.75}
    path.write_text(json.dumps({"/x/camelot_000000_000019_gtFine_instanceIds.png": {"car": [one]}}))
    assert read_distances(path) == {"camelot_000000_000019": {24001: (31.5, 0.75)}}
    for text in ("", "[]", '{"a": {"car": [{}]}}', '{"a": 3}'):
        path.write_text(text)
        with pytest.raises(DataError, match="gtInstances.json"):
            read_distances(path)
    with pytest.raises(DataError, match="cannot read"):
        read_distances(tmp_path / "none.json")


def test_classes_are_the_scripts():
    assert tuple(label.name for label in THINGS) == CLASSES
    assert len(CLASSES) == 8

"""Scenes as rendered: exact masks, complete annotations, the stated shares, the same bytes."""

import ast
import hashlib
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mask_rcnn_ext.data import scenes
from mask_rcnn_ext.data.scenes import layout, render, render_scene
from mask_rcnn_ext.data.scenes.geometry import (
    SUB,
    TURN,
    Disc,
    Figure,
    Part,
    Polygon,
    cosine,
    rasterise,
    sine,
)
from mask_rcnn_ext.data.scenes.person import KEYPOINT_NAMES
from mask_rcnn_ext.data.scenes.png import encode_png, png_size
from mask_rcnn_ext.data.scenes.rng import Stream, lattice_bits
from mask_rcnn_ext.data.scenes.shapes import CLASSES, PERSON

SIDE = 96

# sha256 over pictures, masks and keypoints of scenes 0 to 11, seed 7, for a few sizes.
# They may change only together with GENERATOR_VERSION.
GOLDEN = {
    (64, 64): "240452ba2f569779597a43bb97044104788bcce8d44900aa350ffbea9b4c918d",
    (160, 160): "92dc94960273d8afcbeb132ea5dd8b53e7f97217361d66411729815e866c12b1",
    (96, 192): "6a4018e952769f1518fb959119f1e64ce113067c0e8b95a94f775b68c4f99a3b",
}


@pytest.fixture(scope="module")
def many():
    """300 scenes."""
    return [render_scene(11, index, SIDE) for index in range(300)]


# ---- exactness: a slow rasteriser in fractions, written another way -----------------------------


def slow_contains(primitive, x, y):
    """Whether the point (x, y), Fractions in pixels, is inside."""
    if isinstance(primitive, Disc):
        dx = x - Fraction(primitive.centre[0], SUB)
        dy = y - Fraction(primitive.centre[1], SUB)
        return dx * dx + dy * dy <= Fraction(primitive.radius, SUB) ** 2
    points = [(Fraction(a, SUB), Fraction(b, SUB)) for a, b in primitive.points]
    crossings = 0  # of the ray from the left edge of the world to the point
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        if min(ay, by) <= y < max(ay, by):
            crossings += ax + (y - ay) / (by - ay) * (bx - ax) <= x
    return crossings % 2 == 1


def slow_figure(figure, height, width):
    mask = np.zeros((height, width), dtype=bool)
    for part in figure.parts:
        x0, y0, x1, y1 = (side // SUB for side in part.primitive.bounds())
        for row in range(max(0, y0 - 1), min(height, y1 + 2)):
            for column in range(max(0, x0 - 1), min(width, x1 + 2)):
                if slow_contains(part.primitive, column + Fraction(1, 2), row + Fraction(1, 2)):
                    mask[row, column] = not part.hole
    return mask


def slow_masks(instances, height, width):
    """Visible masks in painter's order."""
    masks = []
    for instance in instances:
        whole = np.zeros((height, width), dtype=bool)
        for figure in instance.figures:
            whole |= slow_figure(figure, height, width)
        masks = [mask & ~whole for mask in masks] + [whole]
    return masks


def test_masks_equal_the_slow_rasteriser():
    checked = set()
    for index in range(12):
        scene = render_scene(2, index, 40)
        if any(instance.iscrowd for instance in scene.instances):
            continue
        slow = slow_masks(scene.instances, 40, 40)
        for instance, mask in zip(scene.instances, slow, strict=True):
            np.testing.assert_array_equal(instance.mask, mask, err_msg=f"scene {index}")
            checked.add(instance.category_id)
    assert checked == set(CLASSES)  # every class took part


def test_crowd_mask_equals_the_slow_rasteriser():
    index = next(i for i in range(400) if any(x.iscrowd for x in render_scene(2, i, 32).instances))
    scene = render_scene(2, index, 32)
    for instance, mask in zip(scene.instances, slow_masks(scene.instances, 32, 32), strict=True):
        np.testing.assert_array_equal(instance.mask, mask)


def one(*parts):
    return rasterise((Figure(parts),))


def test_pixel_centres_decide():
    #  centres of pixels 0..3 at 0.5, 1.5, 2.5, 3.5; the square [0.5, 2.5) owns centres 0.5 and 1.5
    low, high = SUB // 2, SUB * 5 // 2
    patch = one(Part(Polygon(((low, low), (high, low), (high, high), (low, high)))))
    assert (patch.x, patch.y) == (0, 0)
    np.testing.assert_array_equal(patch.mask, [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    # A disc of radius 1 about a centre holds that pixel and its four neighbours, circle included.
    patch = one(Part(Disc((low, low), SUB)))
    assert (patch.x, patch.y) == (-1, -1)
    np.testing.assert_array_equal(patch.mask, [[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def test_polygons_that_share_an_edge_share_no_pixel():
    corners = [(0, 0), (20 * SUB, 3 * SUB), (17 * SUB, 19 * SUB), (2 * SUB, 15 * SUB)]
    whole = one(Part(Polygon(tuple(corners))))
    halves = [corners[:3], [corners[0], *corners[2:]]]
    count = sum(one(Part(Polygon(tuple(half)))).area for half in halves)
    assert count == whole.area > 200


def test_hole_shows_what_is_behind():
    ring = Figure((Part(Disc((0, 0), 8 * SUB)), Part(Disc((0, 0), 4 * SUB), hole=True)))
    patch = rasterise((ring,))
    assert not patch.mask[8, 8]
    assert patch.mask[8, 1]
    assert (
        patch.area == one(Part(Disc((0, 0), 8 * SUB))).area - one(Part(Disc((0, 0), 4 * SUB))).area
    )


def test_sines_are_the_nearest_integers():
    angles = np.arange(-TURN, 2 * TURN)
    exact = np.sin(angles * 2 * np.pi / TURN) * 2**15
    assert np.abs([sine(int(a)) for a in angles] - exact).max() < 0.5 + 1e-9
    assert [cosine(a) for a in (0, TURN // 4, TURN // 2)] == [2**15, 0, -(2**15)]


# ---- annotations -------------------------------------------------------------------------------


def test_every_visible_object_is_annotated_and_visible_enough(many):
    for scene in many:
        covered = np.zeros((SIDE, SIDE), dtype=int)
        for instance in scene.instances:
            covered += instance.mask
            assert instance.area >= layout.MIN_VISIBLE_PIXELS
            assert instance.area * 1000 >= layout.MIN_VISIBLE_PER_MILLE * instance.full_area
            assert instance.category_id in CLASSES
        assert covered.max(initial=0) <= 1, "two visible masks share a pixel"


def test_the_picture_changes_only_where_masks_are(monkeypatch):
    monkeypatch.setattr(render, "SHADOW_PER_MILLE", 0)
    monkeypatch.setattr(render, "BLUR_PER_MILLE", 0)
    for index in range(20):
        scene = render_scene(4, index, SIDE)
        with monkeypatch.context() as patch:
            patch.setattr(render, "plan_scene", lambda *_: [])
            empty = render_scene(4, index, SIDE)
        changed = (scene.image != empty.image).any(axis=2)
        union = np.zeros((SIDE, SIDE), dtype=bool)
        for instance in scene.instances:
            union |= instance.mask
        assert not (changed & ~union).any()
        assert changed[union].mean() > 0.95 if union.any() else True


def test_box_and_area_are_those_of_the_mask(many):
    for instance in (i for scene in many for i in scene.instances):
        rows, columns = np.nonzero(instance.mask)
        x0, y0, w, h = instance.bbox
        assert (x0, y0) == (columns.min(), rows.min())
        assert (x0 + w, y0 + h) == (columns.max() + 1, rows.max() + 1)
        assert instance.area == len(rows)


def test_keypoint_flags(many):
    seen = {0: 0, 1: 0, 2: 0}
    for instance in (i for scene in many for i in scene.instances):
        if instance.category_id != PERSON or instance.iscrowd:
            assert instance.keypoints is None
            continue
        assert instance.keypoints.shape == (17, 3)
        for (x, y, v), (px, py) in zip(
            instance.keypoints.tolist(), instance.figures[0].points, strict=True
        ):
            seen[v] += 1
            outside = not (0 <= px < SIDE * SUB and 0 <= py < SIDE * SUB)
            assert (v == 0) == outside
            assert (x, y) == ((0, 0) if outside else (px // SUB, py // SUB))
            if v:
                assert (v == 2) == bool(instance.mask[y, x])
    assert all(count > 20 for count in seen.values()), seen
    assert seen[2] > 0.8 * sum(seen.values())


def test_joints_of_an_unhidden_person_are_visible():
    stream = Stream("joints")
    for size in [16, 20, 24, 32, 48, 64, 200] * 12:
        figure = layout.build(stream, PERSON, size * SUB)
        patch = rasterise((figure,))
        for name, (x, y) in zip(KEYPOINT_NAMES, figure.points, strict=True):
            assert patch.mask[y // SUB - patch.y, x // SUB - patch.x], (size, name)


def test_left_is_on_the_right(many):
    for instance in (i for scene in many for i in scene.instances):
        if instance.keypoints is not None:
            points = dict(zip(KEYPOINT_NAMES, instance.figures[0].points, strict=True))
            assert points["left_shoulder"][0] > points["right_shoulder"][0]
            assert points["left_eye"][0] > points["right_eye"][0]


# ---- sizes and shares --------------------------------------------------------------------------


@pytest.mark.parametrize("category", CLASSES)
def test_figures_have_the_size_asked_for(category):
    stream = Stream("size", category)
    for pixels in (8, 11, 20, 45, 80):
        mask = rasterise((layout.build(stream, category, pixels * SUB),)).mask
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.7 * pixels - 2 <= longer <= pixels + 1


def test_sizes_go_from_8_pixels_to_half_the_side():
    stream = Stream("sizes")
    sizes = np.array([layout.draw_size(stream, 160) for _ in range(4000)]) / SUB
    assert 8 <= sizes.min() < 9
    assert 76 < sizes.max() <= 80
    assert 0.77 < np.mean((sizes >= 160 // 6) & (sizes <= 64)) < 0.83


def test_shares(many):
    empty = sum(not scene.instances for scene in many)
    crowds = sum(any(i.iscrowd for i in scene.instances) for scene in many)
    counts = [len(scene.instances) for scene in many]
    # 300 draws at 3 % and 4 %: 9 and 12 expected; the bounds are about three deviations away.
    assert 1 <= empty <= 18
    assert 2 <= crowds <= 22
    assert max(counts) <= layout.MAX_OBJECTS + 1
    assert 4 < np.mean(counts) < 6
    instances = [i for scene in many for i in scene.instances if not i.iscrowd]
    hidden = np.mean([i.area < 0.7 * i.full_area for i in instances])
    assert 0.08 < hidden < 0.2
    classes = np.bincount([i.category_id for i in instances], minlength=len(CLASSES) + 1)[1:]
    assert 0.16 < classes[0] / len(instances) < 0.28
    assert classes[1:].min() > 0.05 * len(instances)


def test_objects_stand_out_from_the_background(many):
    """The mean colour inside differs from that of a margin around, for nearly every object."""
    low = 0
    instances = [(s.image.astype(int), i) for s in many for i in s.instances if not i.iscrowd]
    for image, instance in instances:
        x, y, w, h = instance.bbox
        window = slice(max(0, y - 4), y + h + 4), slice(max(0, x - 4), x + w + 4)
        inside = instance.mask[window]
        difference = image[window][inside].mean(axis=0) - image[window][~inside].mean(axis=0)
        low += np.abs(difference).sum() < 45
    assert low / len(instances) < 0.06


# ---- the same bytes everywhere -----------------------------------------------------------------


def digest(size):
    total = hashlib.sha256()
    for index in range(12):
        scene = render_scene(7, index, size)
        total.update(encode_png(scene.image))
        for instance in scene.instances:
            total.update(np.packbits(instance.mask).tobytes())
            table = instance.keypoints if instance.keypoints is not None else ()
            total.update(str([list(map(int, row)) for row in table]).encode())
    return total.hexdigest()


@pytest.mark.parametrize("size", GOLDEN, ids=str)
def test_golden_bytes(size):
    assert digest(size) == GOLDEN[size], "raise GENERATOR_VERSION if this change is meant"


def test_hash_randomisation_has_no_influence():
    code = (
        "import hashlib; from mask_rcnn_ext.data.scenes import render_scene;"
        "print(hashlib.sha256(render_scene(7, 3, 64).image.tobytes()).hexdigest())"
    )
    package = Path(scenes.__file__).parents[3]
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": str(package)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (
        found.stdout.strip() == hashlib.sha256(render_scene(7, 3, 64).image.tobytes()).hexdigest()
    )


def test_each_argument_matters():
    base = render_scene(1, 0, 64).image
    for other in (
        render_scene(2, 0, 64),
        render_scene(1, 1, 64),
        render_scene(1, 0, 64, split="val"),
    ):
        assert (other.image != base).any()
    np.testing.assert_array_equal(render_scene(1, 0, (64, 64)).image, base)
    assert render_scene(1, 0, (48, 96)).image.shape == (48, 96, 3)


def test_random_numbers_are_uniform():
    stream = Stream("uniform")
    draws = np.array([stream.between(3, 12) for _ in range(20000)])
    counts = np.bincount(draws)[3:]
    assert counts.size == 10
    assert np.abs(counts - 2000).max() < 200
    bits = lattice_bits(5, np.arange(64), np.arange(64))
    assert np.unique(bits).size == 64 * 64
    ones = [np.mean((bits >> np.uint64(k)) & np.uint64(1)) for k in range(64)]
    assert max(abs(p - 0.5) for p in ones) < 0.04


def test_only_numpy_and_pycocotools_are_imported():
    allowed = {"numpy", "pycocotools", *sys.stdlib_module_names}
    for path in Path(scenes.__file__).parent.glob("*.py"):
        if path.name.startswith("cityscapes_"):  # needs the label images' rasteriser anyway
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= allowed, path.name


@pytest.mark.parametrize("shape", [(32, 32), (3, 5), (200, 150)])
def test_png_is_readable(tmp_path, shape):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    data = encode_png(pixels)
    assert len(data) == png_size(*shape)
    (tmp_path / "a.png").write_bytes(data)
    with image.open(tmp_path / "a.png") as file:
        file.load()
        assert file.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(file), pixels)

"""CityscapesEvaluator: the same figures on one and on two processes; the submission's files."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.cityscapes.instances import read_instance_ids
from mask_rcnn_ext.data.cityscapes.labels import THINGS
from mask_rcnn_ext.data.scenes import generate_splits
from mask_rcnn_ext.errors import DataError, UsageError
from mask_rcnn_ext.evaluation.cityscapes import (
    CityscapesEvaluator,
    cityscapes_figures,
    match_image,
)

NAMES = [label.name for label in THINGS]
SIZE = (128, 192)


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Cityscapes' layout with 8 images in val."""
    root = tmp_path_factory.mktemp("cityscapes")
    generate_splits(root, {"val": 8}, SIZE, 5, workers=1, progress=False, layout="cityscapes")
    return root


@pytest.fixture
def dataset(streets, request):
    name = f"streets_{request.node.name}"
    MetadataCatalog.get(name).set(thing_classes=NAMES, gt_dir=str(streets / "gtFine" / "val"))
    yield name
    MetadataCatalog.remove(name)


def image_files(root):
    return sorted(map(str, (root / "leftImg8bit" / "val").glob("*/*.png")))


def predict(root, file, bitmaps=False):
    """Shifted copies of an image's objects, in the order of their ids, as a model would return."""
    seed = image_files(root).index(file)
    rng = np.random.default_rng(seed)
    place = file.replace("leftImg8bit/val", "gtFine/val")
    ids = read_instance_ids(Path(place.replace("_leftImg8bit.png", "_gtFine_instanceIds.png")))
    values = [v for v in np.unique(ids).tolist() if v // 1000 in [t.id for t in THINGS]]
    masks = [np.roll(ids == value, rng.integers(-2, 3, 2), (0, 1)) for value in values]
    classes = [[t.id for t in THINGS].index(value // 1000) for value in values]
    instances = Instances(ids.shape)
    instances.pred_boxes = Boxes(torch.zeros(len(values), 4))
    instances.scores = torch.from_numpy(rng.random(len(values))).float()
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    if bitmaps:
        instances.pred_masks = torch.from_numpy(np.array(masks).reshape(-1, *ids.shape))
    else:
        instances.pred_mask_rles = [
            coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks
        ]
    return instances


def run(evaluator, root, files=None, bitmaps=False):
    evaluator.reset()
    for file in image_files(root) if files is None else files:
        evaluator.process([{"file_name": file}], [{"instances": predict(root, file, bitmaps)}])
    return evaluator.evaluate()


def same(a, b):
    assert list(a) == list(b)
    np.testing.assert_array_equal(list(a.values()), list(b.values()))


def test_figures_are_those_of_the_records(dataset, streets):
    got = run(CityscapesEvaluator(dataset), streets)["cityscapes"]
    records = []
    for file in image_files(streets):
        found = predict(streets, file, bitmaps=True)
        place = file.replace("leftImg8bit/val", "gtFine/val")
        ids = np.array(Image.open(place.replace("leftImg8bit.png", "gtFine_instanceIds.png")))
        labels = [THINGS[index].id for index in found.pred_classes]
        masks = found.pred_masks.numpy()
        records.append(match_image(ids, masks, labels, found.scores.numpy()))
    figures = cityscapes_figures(records)
    assert got["AP"] == 100 * figures.averages()["AP"]
    assert got["AP50-person"] == 100 * figures.of_class("person")["AP50"]
    assert set(got) == {"AP", "AP50"} | {
        f"{key}-{name}" for key in ("AP", "AP50") for name in NAMES
    }
    assert 5 < got["AP"] < 95


def test_bitmaps_and_run_lengths_give_the_same(dataset, streets):
    one = run(CityscapesEvaluator(dataset), streets)
    same(one["cityscapes"], run(CityscapesEvaluator(dataset), streets, bitmaps=True)["cityscapes"])


def test_perfect_predictions_of_countable_objects(dataset, streets):
    evaluator = CityscapesEvaluator(dataset)
    evaluator.reset()
    for file in image_files(streets):
        place = file.replace("leftImg8bit/val", "gtFine/val")
        ids = np.array(Image.open(place.replace("leftImg8bit.png", "gtFine_instanceIds.png")))
        found = predict(streets, file)
        values = [v for v in np.unique(ids).tolist() if v // 1000 in [t.id for t in THINGS]]
        found.pred_mask_rles = [
            coco_mask.encode(np.asfortranarray((ids == value).astype(np.uint8))) for value in values
        ]
        evaluator.process([{"file_name": file}], [{"instances": found}])
    assert evaluator.evaluate()["cityscapes"]["AP"] == 100.0


def run_a_part(root, out):
    """In each of some processes: one image is seen by all of them, one by none."""
    gt_dir = str(root / "gtFine" / "val")
    MetadataCatalog.get("streets").set(thing_classes=NAMES, gt_dir=gt_dir)
    every = image_files(root)
    evaluator = CityscapesEvaluator("streets", image_files=every, submission_dir=out / "txt")
    rank, size = comm.get_rank(), comm.get_world_size()
    mine = [file for i, file in enumerate(every) if i % size == rank or i == 0]
    results = run(evaluator, root, [file for file in mine if file != every[3]])
    (out / f"{size}-{rank}.json").write_text(json.dumps(results))


TWO_PROCESSES = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from detectron2.engine import launch
from test_cityscapes_evaluator import run_a_part

if __name__ == "__main__":
    launch(run_a_part, 2, dist_url="auto", args=(Path(sys.argv[2]), Path(sys.argv[3])))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA, launch() takes its devices")
def test_one_and_two_processes_agree(streets, tmp_path):
    def submission():
        return {path.name: path.read_bytes() for path in (tmp_path / "txt").iterdir()}

    run_a_part(streets, tmp_path)
    MetadataCatalog.remove("streets")
    alone = submission()
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script), str(Path(__file__).parent), str(streets), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    one, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")
    )
    assert second == {}
    same(one["cityscapes"], first["cityscapes"])
    assert 0 < one["cityscapes"]["AP"] < 100
    assert submission() == alone


def test_an_image_that_never_came_counts_as_one_with_nothing_found(dataset, streets, caplog):
    files = image_files(streets)
    full = run(CityscapesEvaluator(dataset), streets)["cityscapes"]["AP"]
    without = run(CityscapesEvaluator(dataset), streets, files[:4])["cityscapes"]["AP"]
    evaluator = CityscapesEvaluator(dataset, image_files=files)
    with caplog.at_level(logging.WARNING, "mask_rcnn_ext"):
        missing = run(evaluator, streets, files[:4])["cityscapes"]["AP"]
    assert "4 of 8 images" in caplog.text
    assert missing < full
    assert missing < without


def test_nan_is_explained(dataset, streets, caplog):
    files = image_files(streets)[:1]
    with caplog.at_level(logging.INFO, "mask_rcnn_ext"):
        results = run(CityscapesEvaluator(dataset), streets, files)["cityscapes"]
    empty = [name for name in NAMES if math.isnan(results[f"AP-{name}"])]
    assert empty
    assert f"No ground truth of {', '.join(empty)} in {dataset}" in caplog.text


def test_no_detections_and_no_images(dataset, streets, caplog):
    evaluator = CityscapesEvaluator(dataset)
    evaluator.reset()
    for file in image_files(streets):
        evaluator.process([{"file_name": file}], [{}])
    assert evaluator.evaluate()["cityscapes"]["AP"] == 0.0
    evaluator.reset()
    with caplog.at_level(logging.WARNING, "mask_rcnn_ext"):
        assert evaluator.evaluate() == {"cityscapes": {}}
    assert "No image" in caplog.text


def test_distances_give_the_other_figures(dataset, streets):
    files = image_files(streets)
    names = [Path(file).name.removesuffix("_leftImg8bit.png") for file in files]
    near = {name: dict.fromkeys(range(40000), (10.0, 1.0)) for name in names}
    got = run(CityscapesEvaluator(dataset, distances=near), streets)["cityscapes"]
    assert {"AP", "AP50", "AP50m", "AP100m", "AP50_50m", "AP50m-person"} <= set(got)
    assert got["AP50m"] == got["AP100m"] > 0
    far = {name: dict.fromkeys(range(40000), (70.0, 1.0)) for name in names}
    got = run(CityscapesEvaluator(dataset, distances=far), streets)["cityscapes"]
    assert math.isnan(got["AP50m"])
    assert got["AP100m"] > 0
    with pytest.raises(DataError, match="none for"):
        run(CityscapesEvaluator(dataset, distances={}), streets)


def test_the_submission_is_read_back_as_the_same_predictions(dataset, streets, tmp_path):
    out = tmp_path / "new" / "folder"
    results = run(CityscapesEvaluator(dataset, submission_dir=out), streets, bitmaps=True)
    records = []
    for file in image_files(streets):
        name = Path(file).name.removesuffix("_leftImg8bit.png")
        lines = [line.split(" ") for line in (out / f"{name}_pred.txt").read_text().splitlines()]
        masks = [np.array(Image.open(out / png)) for png, _, _ in lines]
        assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
        place = file.replace("leftImg8bit/val", "gtFine/val")
        ids = np.array(Image.open(place.replace("leftImg8bit.png", "gtFine_instanceIds.png")))
        labels, scores = [int(line[1]) for line in lines], [float(line[2]) for line in lines]
        records.append(match_image(ids, np.array(masks).reshape(-1, *ids.shape), labels, scores))
    assert results["cityscapes"]["AP"] == 100 * cityscapes_figures(records).averages()["AP"]
    # Without annotations: only the submission, and what an earlier run left is gone.
    (out / "old_0_0_pred.txt").write_text("")
    alone = CityscapesEvaluator(dataset, submission_dir=out, figures=False, gt_dir="/nowhere")
    assert run(alone, streets) == {}
    assert not (out / "old_0_0_pred.txt").exists()
    assert len(list(out.glob("*_pred.txt"))) == 8


def test_a_folder_with_other_things_is_refused(dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        CityscapesEvaluator(dataset, submission_dir=tmp_path)
    with pytest.raises(UsageError, match="no file of a Cityscapes"):
        CityscapesEvaluator(dataset, submission_dir=tmp_path / "thesis.tex")


def test_wrong_calls(dataset, streets):
    evaluator = CityscapesEvaluator(dataset)
    evaluator.reset()
    with pytest.raises(DataError, match="ys_000000_000019_leftImg8bit.png has no annotation"):
        evaluator.process([{"file_name": "a/ys_000000_000019_leftImg8bit.png"}], [{}])
    boxes = predict(streets, image_files(streets)[0])
    boxes.remove("pred_mask_rles")
    with pytest.raises(UsageError, match="MASK_ON"):
        evaluator.process([{"file_name": image_files(streets)[0]}], [{"instances": boxes}])
    MetadataCatalog.get(f"{dataset}2").set(thing_classes=["person", "cat"], gt_dir="x")
    with pytest.raises(UsageError, match="class 'cat'"):
        CityscapesEvaluator(f"{dataset}2")
    MetadataCatalog.get(f"{dataset}3").set(thing_classes=["person"])
    with pytest.raises(UsageError, match="no gt_dir"):
        CityscapesEvaluator(f"{dataset}3")
    with pytest.raises(UsageError, match="nothing to do"):
        CityscapesEvaluator(dataset, figures=False)
    for number in (2, 3):
        MetadataCatalog.remove(f"{dataset}{number}")

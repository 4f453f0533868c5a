"""`mask-rcnn-ext inspect`: the page's numbers are what the model computes for this image."""

from __future__ import annotations

import argparse
import json
import re

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultPredictor
from PIL import Image
from tiny_model import save_tiny_model

from mask_rcnn_ext.engine.trained import load_trained
from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools import inspect_verb


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def shot(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (144, 190, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "shot.png")
    return tmp_path / "shot.png"


def run(model, *words) -> int:
    parser = argparse.ArgumentParser()
    inspect_verb.add_arguments(parser)
    config, weights = model
    given = ["--config-file", config, "--weights", weights, "--score", "0.05", *map(str, words)]
    args = parser.parse_args(given)
    return exit_code_of(lambda: inspect_verb.run(args), "mask-rcnn-ext inspect")


def numbers_in(page) -> dict:
    found = re.search(r'id="numbers">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found[1])


def test_the_numbers_are_the_models(model, shot, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(model, shot, "--out", page, "--json", tmp_path / "n.json") == 0
    numbers = numbers_in(page)
    assert json.loads((tmp_path / "n.json").read_text()) == numbers

    # The same image through Detectron2's own predictor.
    cfg = load_trained(*model, score_threshold=0.05).cfg
    stock = DefaultPredictor(cfg)
    image = np.asarray(Image.open(shot))
    found = stock(image[:, :, ::-1])["instances"]
    detections = numbers["detections"]
    assert len(detections) == len(found)
    assert np.allclose([d["score"] for d in detections], found.scores, rtol=1e-6)
    assert np.allclose([d["box"] for d in detections], found.pred_boxes.tensor, atol=1e-3)
    pixels = image if cfg.INPUT.FORMAT == "RGB" else image[:, :, ::-1]
    tensor = torch.as_tensor(pixels.transpose(2, 0, 1).copy())
    with torch.no_grad():
        images = stock.model.preprocess_image([{"image": tensor}])
        maps = stock.model.backbone(images.tensor)
        proposals = stock.model.proposal_generator(images, maps, None)[0][0]
    shown = numbers["proposals"]["shown"]
    assert numbers["proposals"]["count"] == len(proposals)
    boxes = proposals.proposal_boxes.tensor[: len(shown)]
    assert np.allclose([one["box"] for one in shown], boxes, atol=1e-3)
    assert "proposals" in capsys.readouterr().out


def test_the_same_call_gives_the_same_bytes(model, shot, tmp_path):
    for name in ("a.html", "b.html"):
        assert run(model, shot, "--out", tmp_path / name) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_annotations_of_a_registered_set(model, scenes, tmp_path):
    record = DatasetCatalog.get("scenes_val")[0]
    out = tmp_path / "page.html"
    opts = ("--opts", "INPUT.MIN_SIZE_TEST", "96")
    words = (record["file_name"], "--out", out, "--annotations", "scenes_val", *opts)
    assert run(model, *words) == 0
    numbers = numbers_in(out)
    assert numbers["rois"]["sampled"]
    masks = numbers["sampled_masks"]
    objects = [a for a in record["annotations"] if not a.get("iscrowd")]
    assert len(masks) >= 1
    # Objects are RoIs, too: what is the whole of one has a target as full as its mask.
    scale = 96 / min(record["height"], record["width"])
    for one in objects:
        x, y, w, h = (value * scale for value in one["bbox"])
        box = [x, y, x + w, y + h]
        mine = [m for m in masks if np.allclose(m["box"], box, atol=0.05)]
        assert mine, "each object is a RoI of its own"
        assert 0.1 < np.mean(mine[0]["target"]) <= 1
    assert "targets need" not in out.read_text()


def test_annotations_of_a_file(model, scenes, tmp_path, capsys):
    root = scenes / "scenes"
    file = root / "annotations/instances_val.json"
    data = json.loads(file.read_text())
    name = data["images"][0]["file_name"]
    image = next(root.rglob(name))
    out = tmp_path / "page.html"
    assert run(model, image, "--out", out, "--annotations", file) == 0
    assert numbers_in(out)["rois"]["sampled"]

    other = tmp_path / "other.png"
    other.write_bytes(image.read_bytes())
    assert run(model, other, "--out", out, "--annotations", file) == 2
    assert "has no image other.png" in capsys.readouterr().err
    data["categories"].append({"id": 99, "name": "more"})
    (tmp_path / "more.json").write_text(json.dumps(data))
    assert run(model, image, "--out", out, "--annotations", tmp_path / "more.json") == 2
    assert "has 10 categories, the model 9 classes" in capsys.readouterr().err
    assert run(model, image, "--out", out, "--annotations", "nothing_like_it") == 2


def test_models_without_parts_say_what_is_missing(model, shot, tmp_path):
    out = tmp_path / "page.html"
    assert run(model, shot, "--out", out, "--opts", "MODEL.MASK_ON", "False") == 0
    assert "MODEL.MASK_ON is False" in out.read_text()
    network = ("--opts", "MODEL.META_ARCHITECTURE", "ProposalNetwork")
    assert run(model, shot, "--out", out, *network) == 0
    assert "there is no second stage" in " ".join(out.read_text().split())


def test_files_are_guarded(model, shot, tmp_path, capsys):
    mine = tmp_path / "mine.html"
    mine.write_text("my own page")
    assert run(model, shot, "--out", mine) == 2
    assert mine.read_text() == "my own page"
    assert run(model, shot, "--out", mine, "--force") == 0
    assert run(model, shot, "--out", mine) == 0, "its own page is replaced"
    assert run(model, shot, "--out", shot, "--force") == 2
    assert run(model, shot, "--out", tmp_path / "gone/page.html") == 2
    capsys.readouterr()
    assert run(model, tmp_path / "gone.png", "--out", tmp_path / "a.html") == 1
    assert "gone.png does not exist" in capsys.readouterr().err
    assert run(model, shot, "--out", tmp_path / "a.html", "--detection", "1000") == 2
    assert "there is no detection 1000" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_help_explains_every_option():
    parser = argparse.ArgumentParser()
    inspect_verb.add_arguments(parser)
    assert all(action.help for action in parser._actions)

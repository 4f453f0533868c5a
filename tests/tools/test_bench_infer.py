"""`bench infer`: both sides detect the same in the same images; the table says what it took."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.registration import DATASETS_ENV
from mask_rcnn_ext.errors import UsageError, exit_code_of
from mask_rcnn_ext.ops import paste_masks_to_rle
from mask_rcnn_ext.tools import bench
from mask_rcnn_ext.tools.bench import infer as bench_infer


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


def run(*words: str) -> int:
    return exit_code_of(lambda: bench.run(parse(*words)), "mask-rcnn-ext bench")


SMALL = ["--config-file", bench.QUICK_START, "--device", "cpu", "--threads", "1"]
FROZEN = ["MODEL.RESNETS.NORM", "FrozenBN", "MODEL.BACKBONE.FREEZE_AT", "2"]


def test_the_command_measures_both(tmp_path, capsys, scenes):
    path = tmp_path / "infer.json"
    words = ["--dataset", "scenes_val", "--images", "2", "--repeats", "2", "--image-size", "96x128"]
    assert run("infer", *SMALL, *words, "--json", str(path), *FROZEN) == 0
    out = capsys.readouterr().out
    for text in ("input, ms", "masks, ms", "stock / ours", "peak MB", "96x128", "2 image(s) of sc"):
        assert text in out
    measured = json.loads(path.read_text())
    totals = {}
    for name in ("ours", "stock"):
        stages = measured[name]["seconds"]
        assert list(stages) == ["input", "model", "masks"]
        assert all(len(values) == 2 and min(values) > 0 for values in stages.values())
        totals[name] = [sum(parts) for parts in zip(*stages.values(), strict=True)]
        assert measured[name]["images_per_second"] == pytest.approx(2 / np.median(totals[name]))
    ratios = sorted(s / o for o, s in zip(totals["ours"], totals["stock"], strict=True))
    assert measured["ratio"]["minimum"] == pytest.approx(ratios[0])
    # Random weights that detect: as many as the config allows, and both the same.
    assert measured["detections"] > 50
    assert measured["agreement"]["found"] > 0.98
    assert measured["agreement"]["score"] < 1e-3
    assert measured["agreement"]["mask_iou"] > 0.999
    assert measured["network_inputs"] == [[96, 128]] * 2
    assert measured["precision"] == "float32"


def test_settings_reach_the_sides(monkeypatch, tmp_path):
    built = []

    def stop(*what):
        built.append(what)
        raise UsageError("enough")

    monkeypatch.setattr(bench_infer, "run_infer", stop)
    assert run("infer", *SMALL, "--precision", "bfloat16", "MODEL.WEIGHTS", "some.pth") == 2
    assert run("infer", "--device", "cpu") == 2
    (cfg, *rest), (default, *_) = built
    assert rest == [None, None, 4, 5]
    assert (cfg.TEST.PRECISION, cfg.MODEL.WEIGHTS) == ("bfloat16", "some.pth")
    assert (default.TEST.PRECISION, default.MODEL.WEIGHTS) == ("float32", "")
    assert default.MODEL.RESNETS.DEPTH == 50


def detections(scores, classes, shift=0.0, size=20.0) -> Instances:
    start = 30.0 * torch.arange(len(scores))
    boxes = torch.stack((start + shift, start * 0 + 5, start + size, start * 0 + 25), 1)
    found = Instances((60, 200))
    found.pred_boxes = Boxes(boxes)
    found.scores = torch.tensor(scores)
    found.pred_classes = torch.tensor(classes)
    found.pred_mask_rles = paste_masks_to_rle(torch.ones(len(scores), 28, 28), boxes, (60, 200))
    return found


def test_agreement_counts_class_place_score_and_mask():
    stock = detections([0.9, 0.8, 0.7, 0.6], [1, 2, 3, 4])
    assert vars(bench_infer._agreement([stock], [stock])) == {
        "found": 1.0,
        "score": 0.0,
        "mask_iou": 1.0,
    }
    other = bench_infer._agreement([detections([0.9, 0.5, 0.7, 0.6], [1, 2, 3, 5])], [stock])
    assert other.found == 0.75
    assert other.score == pytest.approx(0.3)
    assert bench_infer._agreement([detections([0.9] * 4, [1, 2, 3, 4], 1.0)], [stock]).found == 0
    none = detections([], [])
    assert bench_infer._agreement([none], [stock]).found == 0
    assert bench_infer._agreement([none], [none]).found == 1.0


def test_the_background_leaves_the_wanted_candidates():
    logits = 2 * torch.randn(200, 10)
    logits[:, -1] = 0
    bias = bench_infer._background(logits, 300, 0.05)
    logits[:, -1] += bias
    above = int((logits.softmax(1)[:, :-1] > 0.05).sum())
    assert 250 <= above <= 310


def test_frozen_norms_get_the_statistics_of_their_input():
    torch.manual_seed(0)
    model = build_model(load_config(bench.QUICK_START, ["MODEL.DEVICE", "cpu", *FROZEN])).eval()
    sample = {"image": torch.randint(0, 256, (3, 64, 64))}
    bench_infer.settle_frozen_norms(model, [sample])
    outputs = []
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            # Copied: the ReLU after it works in place.
            module.register_forward_hook(lambda m, i, out: outputs.append(out.clone()))
    with torch.no_grad():
        model.backbone(model.preprocess_image([sample]).tensor)
    assert len(outputs) > 10
    for out in outputs:
        torch.testing.assert_close(
            out.mean((0, 2, 3)), torch.zeros(out.shape[1]), rtol=0, atol=1e-3
        )
        torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(out.shape[1]), rtol=0, atol=0.1)


def test_random_weights_become_realistic():
    torch.manual_seed(0)
    cfg = load_config(bench.QUICK_START, ["MODEL.DEVICE", "cpu", *FROZEN])
    model = build_model(cfg).eval()
    sample = {"image": torch.randint(0, 256, (3, 96, 96))}
    with torch.no_grad():
        bench_infer._make_realistic(model, sample, cfg)
        (found,) = model.inference([sample], do_postprocess=False)
    assert not torch.equal(
        model.backbone.bottom_up.res2[0].conv1.norm.running_mean, torch.zeros(64)
    )
    assert len(found) > 50
    inside = (found.pred_masks > 0.5).float().mean()
    assert 0.8 < inside < 1  # but for some holes


def test_ours_folds_and_turns_as_the_config_says(monkeypatch, scenes):
    asked = []

    def stop(model, **how):
        asked.append(how)
        raise UsageError("enough")

    monkeypatch.setattr(bench_infer, "prepare_for_inference", stop)
    words = ["--dataset", "scenes_val", "--images", "1", "--image-size", "64x64"]
    assert run("infer", *SMALL, *words) == 2
    other = ["MODEL.FOLD_NORMS", "False", "MODEL.CHANNELS_LAST", "False"]
    assert run("infer", *SMALL, *words, *other) == 2
    assert asked == [
        {"fold_norms": True, "channels_last": True, "compile": False},
        {"fold_norms": False, "channels_last": False, "compile": False},
    ]


def test_without_a_size_both_resize_as_the_config_says():
    cfg = load_config(bench.QUICK_START, ["MODEL.DEVICE", "cpu"])
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    ours = bench_infer._our_sample(image, cfg, None)
    stock = bench_infer._sample(image, bench_infer._stock_resize(cfg, None))
    assert ours["image"].shape == stock["image"].shape == (3, 144, 230)
    assert (ours["height"], ours["width"]) == (stock["height"], stock["width"]) == (50, 80)
    difference = ours["image"].int() - stock["image"].int()
    assert difference.abs().max() <= 1


def test_an_unknown_data_set_is_named(capsys, monkeypatch):
    monkeypatch.setenv(DATASETS_ENV, "/nowhere")
    assert run("infer", *SMALL, "--dataset", "my_set") != 0
    assert "my_set" in capsys.readouterr().err


def test_the_table_without_masks():
    side = SimpleNamespace(
        seconds={s: [1.0] for s in bench_infer.STAGES}, totals=[3.0], memory=None
    )
    agreement = bench_infer.Agreement(1.0, 0.0, None)
    facts = {
        "device_name": "x",
        "threads": 1,
        "torch": "t",
        "images": 2,
        "of": "y",
        "network_inputs": [[4, 6], [4, 6]],
        "repeats": 1,
        "weights": "w",
        "precision": "float32",
    }
    text = bench_infer.as_text(bench_infer.Result(side, side, agreement, 3.0, facts))
    assert "mask IoU" not in text
    for milliseconds in ("500.0 (500.0-500.0)", "1500.0 (1500.0-1500.0)"):  # of one image
        assert f" {milliseconds}" in text
    assert "0.67" in text
    assert "random scores" not in text
    facts |= {"weights": bench_infer.RANDOM, "precision": "bfloat16"}
    text = bench_infer.as_text(bench_infer.Result(side, side, agreement, 3.0, facts))
    assert "random scores tie" in text


@pytest.mark.gpu
def test_it_measures_a_gpu(capsys, scenes):
    words = ["--config-file", bench.QUICK_START, "--dataset", "scenes_val", "--images", "1"]
    assert run("infer", *words, "--repeats", "1", "--precision", "float16") == 0
    assert "ours in float16" in capsys.readouterr().out

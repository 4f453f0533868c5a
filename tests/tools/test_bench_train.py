"""`bench train`: both sides train on the same data from the same weights; the table says what."""

from __future__ import annotations

import argparse
import json
import os

import pytest
import torch

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.registration import DATASETS_ENV
from mask_rcnn_ext.errors import UsageError, exit_code_of
from mask_rcnn_ext.tools import bench
from mask_rcnn_ext.tools.bench import train as bench_train
from mask_rcnn_ext.tools.bench.stock import stock_config
from mask_rcnn_ext.tools.bench.timing import Spread


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


def run(*words: str) -> int:
    return exit_code_of(lambda: bench.run(parse(*words)), "mask-rcnn-ext bench")


TINY = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "SOLVER.IMS_PER_BATCH", "2"]


def test_the_command_measures_both(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_train, "_SCENES", 6)
    monkeypatch.delenv(DATASETS_ENV, raising=False)
    path = tmp_path / "train.json"
    words = ["--iterations", "2", "--repeats", "2", "--threads", "1", "--device", "cpu"]
    assert run("train", *words, "--json", str(path), *TINY) == 0
    assert DATASETS_ENV not in os.environ
    out = capsys.readouterr().out
    for text in ("images/s", "stock / ours", "peak MB", "2 blocks of 2", "scenes_train, 2 images"):
        assert text in out
    measured = json.loads(path.read_text())
    for side in (measured["ours"], measured["stock"]):
        assert len(side["seconds"]) == len(side["losses"]) == 2
        assert all(loss > 0 for loss in side["losses"])
        assert side["images_per_second"]["maximum"] == pytest.approx(4 / min(side["seconds"]))
    ratios = sorted(
        s / o
        for o, s in zip(measured["ours"]["seconds"], measured["stock"]["seconds"], strict=True)
    )
    assert measured["ratio"]["minimum"] == pytest.approx(ratios[0])
    assert measured["torch"] == torch.__version__
    assert (measured["precision"], measured["stock_precision"]) == ("float32", "float32")
    assert len(measured["first_losses"]) == 5
    for ours, stock in measured["first_losses"].values():
        assert ours == pytest.approx(stock, abs=1e-4)
        assert stock > 0


def test_settings_reach_the_sides(scenes, monkeypatch):
    built = []

    def stop(cfg, iterations, repeats):
        built.append((cfg, iterations, repeats))
        raise UsageError("enough")

    monkeypatch.setattr(bench_train, "run_train", stop)
    words = ["--config-file", bench.QUICK_START, "--device", "cpu"]
    assert run("train", *words, "--amp", "bfloat16", "SOLVER.MAX_ITER", "7") == 2
    assert run("train", *words, "SOLVER.AMP.ENABLED", "True") == 2
    assert run("train", *words, "--amp", "off") == 2
    (first, *counts), (second, *_), (third, *_) = built
    assert counts == [20, 7]
    assert first.SOLVER.AMP.ENABLED
    assert first.SOLVER.AMP.PRECISION == "bfloat16"
    assert first.SOLVER.MAX_ITER == 7
    assert first.MODEL.WEIGHTS == ""
    assert second.SOLVER.AMP.ENABLED
    assert not third.SOLVER.AMP.ENABLED


def test_stock_is_detectron2s_own():
    cfg = load_config(bench.QUICK_START, ["MODEL.DEVICE", "cpu"])
    stock = stock_config(cfg)
    assert stock.MODEL.ROI_HEADS.NAME == "StandardROIHeads"
    assert stock.MODEL.ROI_MASK_HEAD.NAME == "MaskRCNNConvUpsampleHead"
    assert stock.MODEL.PROPOSAL_GENERATOR.NAME == "RPN"
    for branch in ("ROI_BOX_HEAD", "ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD"):
        assert stock.MODEL[branch].POOLER_TYPE.startswith("ROI")
    assert cfg.MODEL.ROI_HEADS.NAME == "MaskRCNNROIHeads"  # its own is left as it was


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ROI_HEADS.NMS", "soft_linear"),
        ("MODEL.ROI_MASK_HEAD.LOSS", "softmax"),
        ("MODEL.ROI_MASK_HEAD.RESOLUTION", "56"),
        ("MODEL.ROI_BOX_HEAD.POOLER_AGGREGATION", "max"),
        ("MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE", "3"),
    ],
)
def test_what_detectron2_has_not_is_refused(key, value):
    cfg = load_config(bench.QUICK_START, ["MODEL.DEVICE", "cpu", key, value])
    with pytest.raises(UsageError, match=f"{key} is .*{value}.*nothing to compare"):
        stock_config(cfg)


def test_no_gpu_is_2(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench_train, "_SCENES", 1)
    assert run("train", "--device", "cuda") == 2
    assert "cuda" in capsys.readouterr().err


def test_the_ratio_is_taken_block_by_block():
    ours, stock = (
        bench_train.Side(step=None, seconds=seconds, losses=[1.0] * 3)
        for seconds in ([1.0, 2.0, 4.0], [3.0, 2.0, 8.0])
    )
    facts = {"iterations": 5, "batch": 4}
    result = bench_train.Result(ours, stock, {"a": (1.0, 1.5), "b": (2.0, 1.9)}, facts)
    assert result.ratio == Spread.of([3.0, 1.0, 2.0])
    assert result.loss_difference == 0.5
    assert result.images_per_second(stock).minimum == 20 / 8


@pytest.mark.gpu
def test_it_measures_a_gpu(capsys):
    assert run("train", "--iterations", "2", "--repeats", "1", "--amp", "float16", *TINY) == 0
    assert "stock in float16" in capsys.readouterr().out

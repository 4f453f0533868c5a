"""`bench masks`: both sides do the same work, the table holds what was measured."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools import bench
from mask_rcnn_ext.tools.bench import masks as bench_masks


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args = parser.parse_args(words)
    return exit_code_of(lambda: bench.run(args), "mask-rcnn-ext bench")


SMALL = ["--image-size", "60x90", "--threads", "1"]


def test_the_command_measures_every_combination(tmp_path, capsys):
    path = tmp_path / "masks.json"
    sizes = ["--image-size", "60x90", "31x47"]
    counts = ["--detections", "3", "5"]
    words = [*sizes, *counts, "--threads", "1", "--repeats", "2", "--json", str(path)]
    threads = torch.get_num_threads()
    assert run("masks", *words) == 0
    assert torch.get_num_threads() == threads
    captured = capsys.readouterr()
    for text in ("60x90", "31x47", "stock / ours", "peak MB", "2 repeats", "1 threads", "log-unif"):
        assert text in captured.out
    assert "5 masks on 31x47" in captured.err  # progress
    measured = json.loads(path.read_text())
    assert [(r["image_size"], r["detections"]) for r in measured["results"]] == [
        ([60, 90], 3),
        ([60, 90], 5),
        ([31, 47], 3),
        ([31, 47], 5),
    ]
    for result in measured["results"]:
        assert result["equal"] is True
        ours, stock = result["ours"]["seconds"], result["stock"]["seconds"]
        assert len(ours) == len(stock) == 2
        ratios = sorted(s / o for s, o in zip(stock, ours, strict=True))
        assert result["ratio"]["minimum"] == pytest.approx(ratios[0])
        assert result["ratio"]["maximum"] == pytest.approx(ratios[1])
    assert measured["torch"] == torch.__version__


def test_a_difference_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(bench_masks, "stock", lambda masks, boxes, size: [])
    assert run("masks", *SMALL, "--detections", "2", "--repeats", "1") == 0
    assert "NO" in capsys.readouterr().out


def test_defaults():
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args = parser.parse_args(["masks"])
    assert (args.image_size, args.detections, args.repeats) == ([(1024, 2048)], [100], None)


def test_made_up_masks_are_soft_and_fill_about_half_their_boxes():
    masks = bench_masks.random_masks(50, 3)
    assert masks.shape == (50, 28, 28)
    assert masks.dtype == torch.float32
    assert torch.equal(masks, bench_masks.random_masks(50, 3))
    assert 0 < masks.min() < 0.1
    assert 0.9 < masks.max() < 1
    assert ((masks > 0.1) & (masks < 0.9)).float().mean() < 0.5  # soft at the edge only
    filled = (masks >= 0.5).float().mean(dim=(1, 2))
    assert filled.min() > 0.3
    assert filled.max() < 0.9


@pytest.mark.parametrize(
    "words", [["--detections", "0"], ["--image-size", "big"], ["--repeats", "none"]]
)
def test_what_the_parser_refuses_is_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        run("masks", *words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_no_folder_for_the_json_is_2(capsys):
    assert run("masks", *SMALL, "--json", "no/such/a.json") == 2
    assert "no folder no/such" in capsys.readouterr().err

"""`bench`: counts that a hand can check, tables that hold what they promise."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.errors import UsageError, exit_code_of
from mask_rcnn_ext.tools import bench
from mask_rcnn_ext.tools.bench import timing
from mask_rcnn_ext.tools.bench.boxes import random_boxes
from mask_rcnn_ext.tools.bench.cost import as_text, count_macs, count_parameters, measure_cost
from mask_rcnn_ext.tools.bench.roi import CASES
from mask_rcnn_ext.tools.bench.timing import Spread, peak_memory

CPU = torch.device("cpu")
R18 = "configs/COCO-InstanceSegmentation/mask_rcnn_R_18_FPN_1x.yaml"
C4 = "configs/COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
# Narrow, so that a CPU is done at once; 6 proposals and 3 detections keep the arithmetic readable.
COUNTS = ["MODEL.RPN.POST_NMS_TOPK_TEST", "6", "TEST.DETECTIONS_PER_IMAGE", "3"]
NARROW = [
    *("MODEL.DEVICE", "cpu", *COUNTS, "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"),
]


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args = parser.parse_args(words)
    return exit_code_of(lambda: bench.run(args), "mask-rcnn-ext bench")


def cost_of(config: str, *opts: str, repeats: int = 0):
    return measure_cost(load_config(config, [*NARROW, *opts]), (64, 96), repeats)


def part(cost, name: str):
    return next(p for p in cost.parts if p.name == name)


# -- counting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 5, 7), 2 * (5 * 7) * 8 * (3 * 9)),
        (nn.Conv2d(8, 8, 3, stride=2, groups=4), (1, 8, 7, 7), (3 * 3) * 8 * (2 * 9)),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 5), (10 * 10) * 6 * 4),
        (nn.Linear(10, 4), (3, 10), 3 * 10 * 4),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)).eval(), (1, 4, 8, 8), 0),
    ],
)
def test_macs_of_one_layer_by_hand(layer, shape, macs):
    assert count_macs(lambda: layer(torch.zeros(shape))) == macs


def test_what_a_module_does_inside_can_be_left_out():
    first, second = nn.Linear(4, 4), nn.Linear(4, 8)
    assert count_macs(lambda: second(first(torch.zeros(1, 4))), [first]) == 4 * 8
    assert count_macs(lambda: second(first(torch.zeros(1, 4)))) == 4 * 4 + 4 * 8  # hooks are gone


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 2)
    assert count_parameters([layer, layer]) == 3 * 2 + 2


def test_branches_of_the_pyramid_by_hand():
    cost = cost_of(R18)
    box = 6 * (16 * 7 * 7 * 32 + 32 * 32 + 32 * 81 + 32 * 80 * 4)
    mask = 3 * (14 * 14 * (4 * 16 * 16 * 9 + 16 * 16 * 4) + 28 * 28 * 16 * 80)
    assert part(cost, "box branch").macs == box
    assert part(cost, "mask branch").macs == mask
    assert cost.macs == sum(p.macs for p in cost.parts)
    bottom_up = cost.inside[0]
    assert 0 < bottom_up.macs < part(cost, "backbone").macs


def test_in_the_c4_form_the_mask_branch_runs_res5_again():
    cost = cost_of(C4, "MODEL.RPN.POST_NMS_TOPK_TEST", "3")
    predictor = 3 * 2048 * (81 + 80 * 4)
    head = 3 * (7 * 7 * 4 * 2048 * 16 + 14 * 14 * 16 * 80)
    assert part(cost, "mask branch").macs - head == part(cost, "box branch").macs - predictor
    assert part(cost, "box branch").parameters > 14e6  # res5 is there
    assert part(cost, "mask branch").parameters < 1e6  # and not here
    assert "res5's parameters are in the box branch" in as_text(cost)


KEYPOINTS = ("MODEL.KEYPOINT_ON", "True", "MODEL.MASK_ON", "False")


@pytest.mark.parametrize(
    ("config", "opts", "names"),
    [
        (R18, (), ["backbone", "RPN", "box branch", "mask branch"]),
        (R18, ("MODEL.MASK_ON", "False"), ["backbone", "RPN", "box branch"]),
        (R18, KEYPOINTS, ["backbone", "RPN", "box branch", "keypoint branch"]),
        (
            R18,
            ("MODEL.META_ARCHITECTURE", "ProposalNetwork", "MODEL.MASK_ON", "False"),
            ["backbone", "RPN"],
        ),
        (
            R18,
            (
                *("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
                *("MODEL.LOAD_PROPOSALS", "True"),
                *("DATASETS.PROPOSAL_FILES_TRAIN", "('a.pkl',)"),
                *("DATASETS.PROPOSAL_FILES_TEST", "('b.pkl',)"),
            ),
            ["backbone", "box branch", "mask branch"],
        ),
    ],
    ids=["mask", "faster", "keypoint", "proposals", "precomputed"],
)
def test_parts_that_exist_are_there_and_hold_all_parameters(config, opts, names):
    from detectron2.modeling import build_model

    cost = cost_of(config, *opts)
    assert [p.name for p in cost.parts] == names
    assert all(p.macs > 0 for p in cost.parts)
    model = build_model(load_config(config, [*NARROW, *opts]))
    total = sum(p.numel() for p in model.parameters())
    assert sum(p.parameters for p in cost.parts) == total
    assert cost.other == 0
    assert ("mask branch: " in as_text(cost)) == ("mask branch" in names)


def test_models_of_other_parts_are_refused():
    with pytest.raises(UsageError, match="META_ARCHITECTURE is RetinaNet"):
        cost_of(R18, "MODEL.META_ARCHITECTURE", "RetinaNet")


def test_the_cost_command(tmp_path, capsys):
    path = tmp_path / "cost.json"
    words = [
        "--config-file",
        R18,
        "--image-size",
        "64x96",
        "--threads",
        "1",
        "--time",
        "--repeats",
        "2",
    ]
    assert run("cost", *words, "--json", str(path), *NARROW) == 0
    out = capsys.readouterr().out
    assert "64x96" in out
    assert "6 proposals (RPN.POST_NMS_TOPK_TEST), 3 detections" in out
    assert "time, ms" in out
    measured = json.loads(path.read_text())
    shares = [p["macs_share"] for p in measured["parts"]]
    assert sum(shares) == pytest.approx(1)
    assert all(len(p["seconds"]) == 2 for p in measured["parts"])
    assert measured["total"]["macs"] == sum(p["macs"] for p in measured["parts"])
    mask = measured["parts"][-1]["macs"]
    without = measured["total"]["macs"] - mask
    assert measured["overhead_percent"]["mask"]["macs"] == pytest.approx(100 * mask / without)
    assert f"mask branch: {100 * mask / without:.1f} % MAC" in out


def test_without_time_the_table_has_none(capsys):
    words = ["--config-file", R18, "--image-size", "64x96", "--threads", "1", *NARROW]
    assert run("cost", *words, "MODEL.MASK_ON", "False") == 0
    out = capsys.readouterr().out
    assert "ms" not in out
    assert "mask branch" not in out


# -- RoI layers -------------------------------------------------------------------------------


def test_the_quick_comparison_of_all_layers(tmp_path, capsys):
    path = tmp_path / "roi.json"
    threads = torch.get_num_threads()
    assert run("roi", "--quick", "--threads", "1", "--json", str(path)) == 0
    assert torch.get_num_threads() == threads
    captured = capsys.readouterr()
    for words in ("stock / ours", "peak MB", "2 repeats", "1 threads", torch.__version__, "P2-P5"):
        assert words in captured.out
    assert "RoIWarp ave" in captured.err  # progress
    measured = json.loads(path.read_text())
    assert [r["case"] for r in measured["results"]] == [case.key for case in CASES]
    for result in measured["results"]:
        assert result["output_size"] == 7
        for what in ("forward", "backward", "both"):
            ours, stock = (result[side][what]["seconds"] for side in ("ours", "stock_side"))
            assert len(ours) == len(stock) == 2
            ratios = sorted(s / o for s, o in zip(stock, ours, strict=True))
            assert result["ratio"][what]["minimum"] == pytest.approx(ratios[0])
        if result["same_function"]:
            assert result["max_output_difference"] < 1e-4
            assert result["max_gradient_difference"] < 1e-3
        else:
            assert result["max_output_difference"] is None


def test_sizes_dtypes_and_cases_are_those_asked_for(tmp_path):
    path = tmp_path / "roi.json"
    words = ["--cases", "v2", "--sizes", "3", "5", "--dtypes", "float64", "--repeats", "1"]
    assert run("roi", "--quick", "--threads", "1", *words, "--json", str(path)) == 0
    results = json.loads(path.read_text())["results"]
    assert [(r["output_size"], r["dtype"]) for r in results] == [(3, "float64"), (5, "float64")]


def test_the_list_of_cases_in_the_help_is_the_list_of_cases():
    assert [case.key for case in CASES] == list(bench._CASES)


def test_the_picture(tmp_path, capsys):
    assert run("roi", "--picture", str(tmp_path / "a.png")) == 0
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_made_up_rois_lie_in_the_picture_and_repeat():
    boxes = random_boxes(500, 120, 200, seed=3)
    assert boxes.shape == (500, 4)
    assert torch.equal(boxes, random_boxes(500, 120, 200, seed=3))
    assert not torch.equal(boxes, random_boxes(500, 120, 200, seed=4))
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([200, 120, 200, 120])).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()


# -- wrong calls ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["roi", "--repeats", "0"],
        ["roi", "--sizes", "x"],
        ["roi", "--dtypes", "int8"],
        ["roi", "--cases", "rotated"],
        ["cost"],
        ["cost", "--config-file", R18, "--image-size", "big"],
    ],
)
def test_what_the_parser_refuses_is_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cost", "--config-file", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["cost", "--config-file", R18, "MODEL.MASK"], "has no value"),
        (["cost", "--config-file", R18, "MODEL.DEPHT", "1"], "unknown config key MODEL.DEPHT"),
        (["roi", "--quick", "--json", "no/such/a.json"], "no folder no/such"),
        (["roi", "--picture", "no/such/a.png"], "no folder no/such"),
    ],
)
def test_wrong_values_are_one_message_and_2(words, message, capsys):
    assert run(*words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize(
    "words",
    [["roi", "--device", "cuda"], ["cost", "--config-file", R18, "MODEL.DEVICE", "cuda"]],
)
def test_a_gpu_that_is_not_there_is_2(words, capsys):
    assert run(*words) == 2
    assert "sees no GPU" in capsys.readouterr().err


# -- measuring --------------------------------------------------------------------------------


def test_spread_by_hand():
    spread = Spread.of([4.0, 1.0, 3.0, 2.0, 5.0])
    assert spread == Spread(3.0, 2.0, 4.0, 1.0, 5.0)
    assert spread.text(digits=0) == "3 (2-4)"


def test_the_clock_sees_the_call():
    seconds, result = timing.clock(lambda: time.sleep(0.02) or "done", CPU)
    assert seconds >= 0.02
    assert result == "done"


PEAKS = """
import torch
from mask_rcnn_ext.tools.bench.timing import peak_memory

def call():
    a = torch.ones(10_000_000)  # 40 MB
    b = a + 1  # 80 MB
    del a, b
    torch.ones(5_000_000)  # 20 MB, when the others are gone

for _ in range(2):
    print(peak_memory(call, torch.device("cpu")))
"""


def test_peak_memory_is_what_was_held_at_once():
    """In a process of its own: what the heap of a long test run has to spare is anybody's guess."""
    run = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    peaks = run.stdout.split()
    if "None" in peaks:
        pytest.skip("this system does not tell the peak of resident memory")
    # Memory that the allocator kept would make the second call free.
    assert [float(peak) for peak in peaks] == pytest.approx([80e6, 80e6], rel=0.1)


def test_the_peak_of_an_unknown_system_is_none(monkeypatch):
    def no_such_field(field: str) -> int:
        raise OSError(field)

    monkeypatch.setattr(timing, "_resident", no_such_field)
    assert peak_memory(lambda: None, CPU) is None
    assert timing.megabytes(None) == "-"
    assert timing.megabytes(1.25e6) == "1.2"


def test_table_columns():
    text = timing.table(["a", "bb"], [["long", "1"], ["x", "22"]])
    assert text.splitlines() == ["a     bb", "----  --", "long   1", "x     22"]

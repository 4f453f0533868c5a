"""RPN apart, as docs/proposals.md has it: train it, dump its proposals, train on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mask_rcnn_ext.data.proposals import load_proposals
from mask_rcnn_ext.engine.arguments import argument_parser
from mask_rcnn_ext.engine.setup import setup
from mask_rcnn_ext.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.FPN.OUT_CHANNELS": "16",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "40",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.MAX_ITER": "2",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": "64",
    "TEST.SAMPLE_PICTURES": "0",
    "SEED": "7",
}
RPN = {"MODEL.META_ARCHITECTURE": "ProposalNetwork", "MODEL.MASK_ON": "False"}
SECOND = {
    "MODEL.LOAD_PROPOSALS": "True",
    "MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": "40",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": "20",
}


def _words(*flags: str, **settings: str) -> list[str]:
    """What follows train_net.py."""
    words = [word for pair in (TINY | settings).items() for word in pair]
    return ["--config-file", CONFIG, *flags, *words]


def _run(datasets: Path, *commands: list[str]) -> None:
    """The commands one after the other, in one process: its imports are half of the time."""
    code = (
        "import json, sys\n"
        "from mask_rcnn_ext.engine import launch, run\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    assert launch.parse_and_launch(words, run.run) == 0\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        cwd=ROOT,
        env=os.environ | {"DETECTRON2_DATASETS": str(datasets), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-1500:]


def _losses(folder: Path) -> set[str]:
    """Names of the losses that a training has written down."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return {name for line in lines for name in json.loads(line) if name.startswith("loss_")}


def _files(folder: Path) -> dict[str, str]:
    dump = folder / "rpn" / "proposals" / "inference"
    return {
        f"DATASETS.PROPOSAL_FILES_{split}": f"('{dump}/scenes_{name}/box_proposals.pkl',)"
        for split, name in (("TRAIN", "train"), ("TEST", "val"))
    }


@pytest.fixture(scope="module")
def chain(scenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the three commands, each one's output below it."""
    folder = tmp_path_factory.mktemp("chain")
    rpn = str(folder / "rpn")
    dump = {
        "OUTPUT_DIR": f"{rpn}/proposals",
        "MODEL.WEIGHTS": f"{rpn}/model_final.pth",
        "DATASETS.TEST": "('scenes_train', 'scenes_val')",
    }
    _run(
        scenes_root,
        _words(**RPN, OUTPUT_DIR=rpn),
        _words("--eval-only", **RPN, **dump),
        _words(**SECOND, **_files(folder), OUTPUT_DIR=str(folder / "second")),
    )
    return folder


def test_training_an_rpn_ends_with_its_recall(chain):
    results = json.loads((chain / "rpn" / "results.json").read_text())
    assert 0 <= results["box_proposals/AR@100"] <= results["box_proposals/AR@1000"] <= 100
    assert _losses(chain / "rpn") == {"loss_rpn_cls", "loss_rpn_loc"}


def test_the_dump_has_every_image_of_every_set(chain, scenes_root):
    for name in ("train", "val"):
        annotations = scenes_root / f"scenes/annotations/instances_{name}.json"
        ids = {str(image["id"]) for image in json.loads(annotations.read_text())["images"]}
        file = chain / f"rpn/proposals/inference/scenes_{name}/box_proposals.pkl"
        proposals = load_proposals(file)
        assert set(proposals.ids) == ids
        assert 0 < max(map(len, proposals.boxes)) <= 40
    # The record of the training is not overwritten by the dump's.
    results = json.loads((chain / "rpn/proposals/results.json").read_text())
    assert {"scenes_train/box_proposals/AR@100", "scenes_val/box_proposals/AR@100"} <= set(results)


def test_the_second_stage_trains_without_an_rpn_and_is_evaluated(chain):
    assert _losses(chain / "second") == {"loss_cls", "loss_box_reg", "loss_mask"}
    results = json.loads((chain / "second" / "results.json").read_text())
    assert {"bbox/AP", "segm/AP"} <= set(results)


def test_a_second_stage_without_its_proposals_does_not_start(scenes, tmp_path):
    words = _words(**SECOND, **_files(tmp_path), OUTPUT_DIR=str(tmp_path / "second"))
    args = argument_parser().parse_args(words)
    with pytest.raises(UsageError, match=r"scenes_train/box_proposals\.pkl does not exist"):
        setup(args)

"""train_net.py as a user runs it: a whole tiny run, then everything that can go wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runner import Runner


@pytest.fixture(scope="module")
def finished(scenes_root, tmp_path_factory) -> Runner:
    """A run of three iterations, trained, evaluated and drawn."""
    root = Path(__file__).resolve().parents[2]
    runner = Runner(root, scenes_root, tmp_path_factory.mktemp("run"))
    result = runner(fresh=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return runner


@pytest.fixture
def runner(scenes_root, tmp_path, repo_root) -> Runner:
    return Runner(repo_root, scenes_root, tmp_path / "out")


def _refused(result: subprocess.CompletedProcess, code: int, *expected: str) -> None:
    """A short message on stderr, the right exit code, no traceback anywhere."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    message = result.stderr[result.stderr.index("train_net.py: ") :]
    for text in expected:
        assert text in message
    assert len(message) < 1500


def test_a_run_leaves_what_it_promises(finished):
    names = {path.name for path in finished.out.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.json",
        "results.json",
        "run.json",
        "model_final.pth",
        "last_checkpoint",
        "samples.png",
        "log.txt",
    }
    results = json.loads((finished.out / "results.json").read_text())
    assert {"bbox/AP", "segm/AP", "segm/AP50"} <= set(results)
    record = json.loads((finished.out / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["seed"] == 7
    assert set(record["datasets"]) == {"scenes_train", "scenes_val"}
    assert record["wall_seconds"] > 0
    assert record["peak_memory_mb"] > 100
    assert {"command", "commit", "versions", "device"} <= set(record)


def test_config_yaml_of_a_run_is_enough_to_evaluate_it_again(finished, tmp_path):
    again = finished(
        "--eval-only",
        config=str(finished.out / "config.yaml"),
        OUTPUT_DIR=str(tmp_path),
        MODEL__WEIGHTS=str(finished.out / "model_final.pth"),
    )
    assert again.returncode == 0, again.stderr
    first, second = (
        json.loads((folder / "results.json").read_text()) for folder in (finished.out, tmp_path)
    )
    assert first == second


def test_the_folder_of_another_run_is_refused(finished):
    result = finished(SOLVER__MOMENTUM="0.5")
    _refused(result, 2, str(finished.out), "SOLVER.MOMENTUM: 0.9 -> 0.5", "--resume", "OUTPUT_DIR")


def test_resume_goes_on_from_the_last_checkpoint(finished, tmp_path):
    runner = Runner(finished.root, finished.datasets, tmp_path / "copy")
    shutil.copytree(finished.out, runner.out)
    result = runner("--resume", SOLVER__MAX_ITER="5")
    assert result.returncode == 0, result.stderr
    assert "Starting training from iteration 3" in result.stdout
    state = torch.load(runner.out / "model_final.pth", weights_only=True)
    assert state["iteration"] == 4
    steps = [s["step"] for s in state["trainer"]["_trainer"]["optimizer"]["state"].values()]
    assert steps
    assert all(step == 5 for step in steps)  # the optimizer went on too, 3 + 2 steps


def test_the_same_command_on_a_part_of_the_data_is_the_same_run(runner):
    words = {"DATASETS__MAX_IMAGES": "3", "SOLVER__MAX_ITER": "2", "SEED": "-1"}
    assert runner(**words).returncode == 0
    again = runner(**words)
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stdout
    _refused(runner(**words | {"DATASETS__MAX_IMAGES": "2"}), 2, "DATASETS.MAX_IMAGES: 3 -> 2")


def test_unknown_key(runner):
    _refused(runner(SOLVER__BASE_LRR="1"), 2, "SOLVER.BASE_LRR; nearest: SOLVER.BASE_LR")


def test_missing_config_file(runner):
    _refused(runner(config="configs/none.yaml"), 2, "configs/none.yaml does not exist")


def test_no_config_file(runner):
    command = [sys.executable, "train_net.py"]
    result = subprocess.run(command, cwd=runner.root, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "--config-file is required" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_dataset_root(runner, tmp_path):
    runner.datasets = tmp_path / "nowhere"
    make = f"mask-rcnn-ext scenes --out {tmp_path / 'nowhere' / 'scenes'}"
    _refused(runner(), 1, "DETECTRON2_DATASETS", "scenes/train/<images>", make)


def test_num_classes_that_disagrees(runner):
    _refused(runner(MODEL__ROI_HEADS__NUM_CLASSES="80"), 2, "is 80", "has 9 classes")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_absent_gpu(runner):
    _refused(runner(MODEL__DEVICE="cuda"), 2, "sees no GPU", "MODEL.DEVICE cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_the_gpu(runner):
    result = runner(MODEL__DEVICE="cuda")
    assert result.returncode == 0, result.stderr
    record = json.loads((runner.out / "run.json").read_text())
    assert record["device"] == torch.cuda.get_device_name()
    assert record["peak_gpu_memory_mb"] > 10


def test_adamw_is_what_the_config_asks_for():
    from mask_rcnn_ext import load_config
    from mask_rcnn_ext.engine.trainer import Trainer

    model = torch.nn.Linear(2, 2)
    for name, kind in (("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)):
        opts = ["SOLVER.OPTIMIZER", name, "SOLVER.BASE_LR", "0.125", "SOLVER.WEIGHT_DECAY", "0.25"]
        optimizer = Trainer.build_optimizer(load_config("", opts), model)
        assert isinstance(optimizer, kind)
        assert optimizer.param_groups[0]["lr"] == 0.125
        assert optimizer.param_groups[0]["weight_decay"] == 0.25


def test_diverging_loss_names_the_learning_rate(runner):
    result = runner(SOLVER__BASE_LR="1e12", SOLVER__WARMUP_ITERS="0", SOLVER__MAX_ITER="20")
    _refused(result, 1, "SOLVER.BASE_LR")


@pytest.fixture
def scenes_copy(runner, tmp_path) -> Path:
    """A copy of the scenes to break."""
    shutil.copytree(runner.datasets, tmp_path / "datasets")
    runner.datasets = tmp_path / "datasets"
    return runner.datasets / "scenes"


def test_annotation_file_that_is_cut(runner, scenes_copy):
    path = scenes_copy / "annotations" / "instances_train.json"
    path.write_bytes(path.read_bytes()[:-100])
    _refused(runner(), 1, "instances_train.json is not JSON")


def test_annotation_file_without_a_section(runner, scenes_copy):
    path = scenes_copy / "annotations" / "instances_val.json"
    data = json.loads(path.read_text())
    del data["categories"]
    path.write_text(json.dumps(data))
    _refused(runner(), 1, "instances_val.json lacks the section 'categories'")


def test_missing_image(runner, scenes_copy):
    image = sorted((scenes_copy / "train").glob("*.png"))[2]
    image.unlink()
    _refused(runner(), 1, image.name, "image 3", "data check scenes_train")


def test_image_that_does_not_decode(runner, scenes_copy):
    for image in (scenes_copy / "train").glob("*.png"):
        image.write_bytes(b"no picture")
    _refused(runner(), 1, ".png (image id ", "does not decode")


def test_full_disk_during_a_checkpoint(runner):
    """ulimit makes files above 20 MB fail, as a full disk would; the model needs more."""
    command = " ".join(["ulimit -f 20000; trap '' XFSZ; exec", *runner.command()])
    command = command.replace("(64,)", "'(64,)'")
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=runner.root,
        env=runner.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    _refused(result, 1, "cannot write checkpoint", "File too large")
    assert not list(runner.out.glob("*.pth"))
    assert not list(runner.out.glob(".*partial"))


def test_keypoints_are_trained_and_evaluated(runner):
    config = "configs/COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"
    small = {
        "DATASETS.TRAIN": "('scenes_keypoints_train',)",
        "DATASETS.TEST": "('scenes_keypoints_val',)",
        "MODEL.WEIGHTS": "",
        "MODEL.RESNETS.DEPTH": "18",
        "MODEL.RESNETS.RES2_OUT_CHANNELS": "64",
        "MODEL.FPN.OUT_CHANNELS": "16",
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": "(8,)",
        "INPUT.MIN_SIZE_TRAIN": "(64,)",
        "INPUT.MIN_SIZE_TEST": "64",
        "SOLVER.REFERENCE_BATCH": "0",
    }
    result = runner(config=config, **small)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "keypoints/AP" in json.loads((runner.out / "results.json").read_text())
    lines = (runner.out / "metrics.json").read_text().splitlines()
    assert any("loss_keypoint" in json.loads(line) for line in lines)

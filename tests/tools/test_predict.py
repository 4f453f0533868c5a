"""`mask-rcnn-ext predict`: what it writes, and that one bad file costs no other its results."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tiny_model import CLASSES, save_tiny_model

from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools import predict
from mask_rcnn_ext.tools.predict_output import PredictionsFile
from mask_rcnn_ext.tools.predict_video import VideoReader, VideoWriter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def run(model, *words, score: str = "0.05") -> int:
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    config, weights = model
    words = [*map(str, words), "--max-detections", "4", "--quiet"]
    args = parser.parse_args(
        [*words, "--config-file", config, "--weights", weights, "--score", score]
    )
    return exit_code_of(lambda: predict.run(args), "mask-rcnn-ext predict")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, height: int = 90, width: int = 120, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(height, width, seed)).save(path)
    return path


def make_video(path: Path, frames: int, height: int = 48, width: int = 64) -> Path:
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (width, height))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((height, width, 3), 20 * number % 255, np.uint8))
    writer.release()
    return path


def read(out: Path) -> dict:
    return json.loads((out / "predictions.json").read_text())


def all_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_images(model, tmp_path, capsys):
    for number, name in enumerate(["a.jpg", "deep/b.png", "deep/c.jpg"]):
        save(tmp_path / "in" / name, 90 + 10 * number, 120, seed=number)
    out = tmp_path / "out"
    assert run(model, tmp_path / "in", "--out", out, "--instance-maps", "--batch", "2") == 0
    assert all_files(out) == {
        "predictions.json",
        *(f"overlays/{name}.jpg" for name in ("a", "deep/b", "deep/c")),
        *(f"instances/{name}.png" for name in ("a", "deep/b", "deep/c")),
    }
    found = read(out)
    assert [(i["file_name"], i["height"], i["width"]) for i in found["images"]] == [
        ("a.jpg", 90, 120),
        ("deep/b.png", 100, 120),
        ("deep/c.jpg", 110, 120),
    ]
    assert found["categories"] == [{"id": k, "name": n} for k, n in enumerate(CLASSES, 1)]
    assert len(found["annotations"]) == 12
    assert "12 objects in 3 images" in capsys.readouterr().out
    # k of the map is the image's k-th annotation, where no better one covers it.
    mine = [a for a in found["annotations"] if a["image_id"] == 2]
    instances = cv2.imread(str(out / "instances/deep/b.png"), cv2.IMREAD_UNCHANGED)
    assert instances.dtype == np.uint16
    masks = [coco_mask.decode(a["segmentation"]).astype(bool) for a in mine]
    for number, mask in enumerate(masks, 1):
        better = np.any(masks[: number - 1], axis=0) if number > 1 else np.zeros_like(mask)
        assert (instances[mask & ~better] == number).all()
    assert not instances[~np.any(masks, axis=0)].any()
    assert cv2.imread(str(out / "overlays/a.jpg")).shape[2] == 3


def test_pycocotools_reads_the_file_and_the_results_in_it(model, tmp_path):
    out = tmp_path / "out"
    assert run(model, save(tmp_path / "a.png", 77, 101), "--out", out) == 0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out / "predictions.json"))
        results = coco.loadRes(read(out)["annotations"])
    assert len(coco.anns) == len(results.anns) == 4
    for annotation in coco.anns.values():
        assert annotation["segmentation"]["size"] == [77, 101]
        mask = coco.annToMask(annotation)
        assert mask.shape == (77, 101)
        assert annotation["area"] == mask.sum()
        assert annotation["iscrowd"] == 0
        assert 0.05 <= annotation["score"] <= 1


def test_the_same_call_gives_the_same_bytes(model, tmp_path):
    image = save(tmp_path / "a.png")
    for out in ("one", "two"):
        assert run(model, image, "--out", tmp_path / out, "--instance-maps") == 0
    for name in all_files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_broken_file_among_others(model, tmp_path, capsys):
    for name in ("a.jpg", "c.jpg"):
        save(tmp_path / "in" / name)
    (tmp_path / "in/b.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (tmp_path / "in/d.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    assert run(model, tmp_path / "in", "--out", out) == 1
    errors = capsys.readouterr().err
    assert "b.jpg does not decode" in errors
    assert "d.mp4 does not decode" in errors
    assert "2 of 4 inputs could not be used" in errors
    assert [image["file_name"] for image in read(out)["images"]] == ["a.jpg", "c.jpg"]
    assert all_files(out / "overlays") == {"a.jpg", "c.jpg"}


def test_nothing_found_is_a_result(model, tmp_path):
    out = tmp_path / "out"
    image = save(tmp_path / "a.jpg")
    assert run(model, image, "--out", out, "--instance-maps", score="1.0") == 0
    assert read(out)["annotations"] == []
    assert len(read(out)["images"]) == 1
    assert not cv2.imread(str(out / "instances/a.png"), cv2.IMREAD_UNCHANGED).any()


def test_results_are_replaced_only_if_asked(model, tmp_path, capsys):
    out = tmp_path / "out"
    image = save(tmp_path / "a.jpg")
    assert run(model, image, "--out", out) == 0
    before = (out / "predictions.json").read_bytes()
    assert run(model, image, "--out", out, score="1.0") == 2
    assert "--force" in capsys.readouterr().err
    assert (out / "predictions.json").read_bytes() == before
    assert run(model, image, "--out", out, "--force", score="1.0") == 0
    assert read(out)["annotations"] == []


def test_an_input_is_never_overwritten(model, tmp_path, capsys):
    image = save(tmp_path / "overlays/a.jpg")
    before = image.read_bytes()
    assert run(model, image, "--out", tmp_path) == 2
    assert "could be overwritten" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_a_folder_that_cannot_be_written(model, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(model, save(tmp_path / "a.jpg"), "--out", tmp_path / "file/out") == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(model, tmp_path, monkeypatch, capsys):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PredictionsFile, "add", full)
    out = tmp_path / "out"
    assert run(model, save(tmp_path / "a.jpg"), "--out", out) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert all_files(out) == set()


def test_without_overlays(model, tmp_path):
    out = tmp_path / "out"
    assert run(model, save(tmp_path / "a.jpg"), "--out", out, "--no-overlays") == 0
    assert all_files(out) == {"predictions.json"}


def test_a_model_without_masks(model, tmp_path, capsys):
    out = tmp_path / "out"
    image = save(tmp_path / "a.jpg")
    boxes_only = ("--opts", "MODEL.MASK_ON", "False")
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    words = [str(image), "--config-file", model[0], "--weights", model[1], "--score", "0.05"]

    def call(*more: str) -> int:
        args = parser.parse_args([*words, "--quiet", *more, *boxes_only])
        return exit_code_of(lambda: predict.run(args), "mask-rcnn-ext predict")

    assert call("--out", str(out)) == 0
    annotation = read(out)["annotations"][0]
    assert "segmentation" not in annotation
    assert annotation["area"] == pytest.approx(annotation["bbox"][2] * annotation["bbox"][3])
    assert (out / "overlays/a.jpg").exists()
    assert call("--out", str(tmp_path / "maps"), "--instance-maps") == 2
    assert "predicts no masks" in capsys.readouterr().err


def test_keypoints_are_written_and_drawn(tmp_path):
    head = ("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[8]")
    model = save_tiny_model(tmp_path, head)
    assert run(model, save(tmp_path / "a.jpg"), "--out", tmp_path / "out") == 0
    assert all(len(a["keypoints"]) == 51 for a in read(tmp_path / "out")["annotations"])


@pytest.mark.parametrize("ending", [".mp4", ".avi"])
def test_a_video_becomes_a_video(model, tmp_path, ending):
    clip = make_video(tmp_path / f"clip{ending}", 7)
    out = tmp_path / "out"
    assert run(model, clip, "--out", out, "--instance-maps", "--batch", "3") == 0
    found = read(out)
    assert [(i["file_name"], i["frame"]) for i in found["images"]] == [
        (clip.name, frame) for frame in range(7)
    ]
    drawn = cv2.VideoCapture(str(out / "overlays/clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert drawn.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert drawn.read()[1].shape == (48, 64, 3)
    maps = {f"{clip.name}/{frame:06d}.png" for frame in range(7)}
    assert all_files(out / "instances") == maps
    assert all_files(out / "overlays") == {"clip.mp4"}


def test_a_video_that_was_cut_short_keeps_its_frames(model, tmp_path, capsys):
    clip = make_video(tmp_path / "clip.avi", 40)
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "z.jpg")
    out = tmp_path / "out"
    assert run(model, clip, tmp_path / "z.jpg", "--out", out) == 1
    errors = capsys.readouterr().err
    assert "clip.avi" in errors
    found = read(out)
    frames = sum("frame" in image for image in found["images"])
    assert 0 < frames < 40
    assert f"announces 40 frames, but only {frames} decode" in errors
    drawn = cv2.VideoCapture(str(out / "overlays/clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == frames


def test_frames_are_streamed(tmp_path):
    """A reader of 200 frames of 1.2 MB holds a few of them at a time."""
    clip = make_video(tmp_path / "long.mp4", 200, 640, 640)
    reader = iter(VideoReader(clip))
    next(reader)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(frame.shape == (640, 640, 3) for frame in reader) == 199
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB of 246,000


def test_odd_sizes_lose_no_row_or_column(tmp_path):
    writer = VideoWriter(tmp_path / "sub/odd.mp4", 25)
    frame = np.full((31, 45, 3), 200, np.uint8)
    for _ in range(3):
        writer.write(frame)
    writer.write(np.full((60, 90, 3), 200, np.uint8))  # a stream may change its size
    writer.close(complete=True)
    back = list(VideoReader(tmp_path / "sub/odd.mp4"))
    assert [one.shape for one in back] == [(32, 46, 3)] * 4
    assert all(abs(int(one.mean()) - 200) < 4 for one in back)


def test_an_unfinished_video_leaves_nothing(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 25)
    writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.close(complete=False)
    assert all_files(tmp_path) == set()


def test_a_video_without_frames_on_the_disk_is_an_error(tmp_path, monkeypatch):
    from mask_rcnn_ext.errors import UserError

    writer = VideoWriter(tmp_path / "a.mp4", 25)
    writer.write(np.zeros((32, 32, 3), np.uint8))
    writer._frames += 5  # as if later writes had failed, which OpenCV does not say
    with pytest.raises(UserError, match=r"1 of 6 frames arrived"):
        writer.close(complete=True)
    assert all_files(tmp_path) == set()


def test_a_missing_file_of_a_list_is_named(model, tmp_path, monkeypatch, capsys):
    image = save(tmp_path / "a.jpg")
    lines = b"\n".join([os.fsencode(image), b"gone.jpg", b"gone.mp4"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert run(model, "-", "--out", tmp_path / "out") == 1
    errors = capsys.readouterr().err
    assert "gone.jpg does not exist" in errors
    assert "gone.mp4 does not exist" in errors
    assert len(read(tmp_path / "out")["images"]) == 1


def test_help_explains_every_option(capsys):
    parser = argparse.ArgumentParser(description=predict.__doc__)
    predict.add_arguments(parser)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for action in parser._actions:
        assert action.help, action.dest
    for word in ("INPUT", "--score", "--instance-maps", "--augment", "stdin"):
        assert word in text

"""Checksums in names and lists: broken promises are told, lookalikes are left alone."""

from __future__ import annotations

import hashlib
import pickle

import pytest
import torch

from mask_rcnn_ext.engine.weights import read_weights
from mask_rcnn_ext.engine.weights.checksum import check_sums, digest, promises
from mask_rcnn_ext.errors import UserError


def _file(folder, name):
    path = folder / name
    torch.save({"a": torch.ones(3)}, path)
    return path


def _hex(path, algorithm):
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "algorithm", "digits"),
    [
        ("resnet50-0676ba61.pth", "sha256", "0676ba61"),
        ("resnext101_64x4d-173b62eb.pth", "sha256", "173b62eb"),
        ("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "sha256", "73cbd019"),
        ("model_final_f10217.pkl", "md5", "f10217"),
        ("model_final_280758.pkl", "md5", "280758"),  # digits only, and in Detectron2's list
    ],
)
def test_names_that_promise(tmp_path, name, algorithm, digits):
    if name == "model_final_280758.pkl":
        pytest.importorskip("detectron2.model_zoo", exc_type=ImportError)
    path = _file(tmp_path, name)
    (promise,) = promises(path)
    assert (promise.algorithm, promise.digits) == (algorithm, digits)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert f"{path} is not the file that was published" in message
    assert f"{algorithm} {digits}, this one has {_hex(path, algorithm)[: len(digits)]}" in message


@pytest.mark.parametrize(
    "name",
    [
        "model_final.pth",
        "model_0001999.pth",
        "model_final_123456.pkl",  # digits that Detectron2 does not list
        "model_final_facade.pkl",
        "model_final_f10217.pth",  # the zoo's are .pkl
        "resnet50-20240131.pth",
        "resnet50-deadbeef.pth",
        "resnet50-0676ba6.pth",  # seven digits: a commit
        "mymodel-1a2b3c4d.pth",
        "my_resnet50-1a2b3c4d.pth",
        "resnet50-1a2b3c4d.safetensors",
        "R-50.pkl",
    ],
)
def test_names_that_only_look_so(tmp_path, name):
    assert promises(_file(tmp_path, name)) == []


def test_a_name_that_keeps_its_promise(tmp_path):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"number": 1}, 4))  # sha256 3dfe3904..., md5 56a8b6...
    for kind, name in (("sha256", "resnet50-{:.8}.pth"), ("md5", "model_final_{:.6}.pkl")):
        right = path.with_name(name.format(_hex(path, kind)))
        right.write_bytes(path.read_bytes())
        assert len(promises(right)) == 1
        assert read_weights(right) == {"number": 1}
    assert digest(path, "md5") == _hex(path, "md5")


@pytest.mark.parametrize("mark", ["  ", " *", "  ./"])
@pytest.mark.parametrize("manifest", ["SHA256SUMS", "w.pth.sha256"])
def test_lists(tmp_path, mark, manifest):
    path = _file(tmp_path, "w.pth")
    right = _hex(path, "sha256")
    lines = f"{'0' * 64}  other.pth\n{right.upper()}{mark}w.pth\n"
    (tmp_path / manifest).write_text(lines if manifest == "SHA256SUMS" else lines.split("\n")[1])
    assert [promise.origin for promise in check_sums(path)] == [manifest]
    (tmp_path / manifest).write_text(f"{'0' * 64}{mark}w.pth\n")
    with pytest.raises(UserError, match=f"{manifest} says sha256 {'0' * 64}, this one has {right}"):
        read_weights(path)


def test_lists_that_say_nothing_of_the_file(tmp_path):
    path = _file(tmp_path, "w.pth")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.pth\n# text\n")
    assert check_sums(path) == []
    (tmp_path / "w.pth.sha256").write_text(_hex(path, "sha256"))  # without a name
    assert len(check_sums(path)) == 1
    (tmp_path / "w.pth.sha256").write_text("nothing\n")
    with pytest.raises(UserError, match="no line as sha256sum writes it"):
        read_weights(path)
    (tmp_path / "w.pth.sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="unreadable"):
        read_weights(path)

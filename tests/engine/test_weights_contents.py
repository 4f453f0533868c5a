"""What a file holds and whether it is whole, without a config."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from mask_rcnn_ext.engine.weights.contents import as_json, as_text, contents
from mask_rcnn_ext.engine.weights.safetensors_file import safetensors_bytes
from mask_rcnn_ext.engine.weights.verify import verify
from mask_rcnn_ext.errors import UsageError

MODEL = {
    "backbone.bottom_up.stem.conv1.weight": torch.ones(2, 3),
    "backbone.bottom_up.res2.0.conv1.weight": torch.ones(4, dtype=torch.float16),
    "roi_heads.box_predictor.cls_score.weight": torch.ones(3, 2),
}


def _run(path):
    state = {0: {"momentum_buffer": torch.ones(5)}}
    torch.save(
        {
            "model": MODEL,
            "iteration": 41,
            "class_names": ["a", "b"],
            "trainer": {"_trainer": {"optimizer": {"state": state, "lr": 0.5}}, "hooks": {}},
            "ema": {name: tensor + 1 for name, tensor in MODEL.items()},
        },
        path,
    )
    return path


def test_a_run_of_ours(tmp_path):
    found = contents(_run(tmp_path / "w.pth"))
    assert (found.format, found.source.kind, found.iteration) == ("torch", "detectron2", 41)
    assert found.class_names == ["a", "b"]
    assert found.size == (tmp_path / "w.pth").stat().st_size
    assert {part: one.parameters for part, one in found.parts.items()} == {
        "backbone.stem": 6,
        "backbone.res2": 4,
        "roi_heads.box_predictor": 6,
    }
    assert found.parts["backbone.res2"].dtypes == ["float16"]
    assert (found.total.tensors, found.total.bytes) == (3, 56)
    assert found.beside == {
        "trainer._trainer.optimizer.state": "1 tensor, 0.0 MB",
        "trainer._trainer.optimizer.lr": "0.5",
        "trainer.hooks": "0 entries",
        **{f"ema.{name}": "1 tensor, 0.0 MB" for name in MODEL},
    }
    text = as_text(found)
    assert "3, 16 numbers, float16, float32" in text
    assert "iteration  41" in text
    assert "classes    2: a, b" in text
    assert as_json(found)["tensors"]["roi_heads.box_predictor.cls_score.weight"] == [3, 2]


def test_other_formats(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"a": np.ones(2)}, "__author__": "me"}))
    found = contents(tmp_path / "w.pkl")
    assert (found.format, found.source.author, found.beside) == ("pickle", "me", {})
    (tmp_path / "w.safetensors").write_bytes(safetensors_bytes(MODEL, {"class_names": ["a"]}))
    found = contents(tmp_path / "w.safetensors")
    assert (found.format, found.class_names) == ("safetensors", ["a"])
    torch.save(MODEL, tmp_path / "bare.pth")
    found = contents(tmp_path / "bare.pth")
    assert found.beside == {}
    assert "not said; it has outputs for 2" in as_text(found)


# --- verify --------------------------------------------------------------------------------------


def test_a_whole_file(tmp_path):
    verdict = verify(_run(tmp_path / "w.pth"))
    assert verdict.findings == []
    assert "7 tensors are finite" in verdict.checked
    assert any("CRC" in line for line in verdict.checked)
    assert len(verdict.sha256) == 64


def test_numbers_that_are_none(tmp_path):
    broken = {"a": torch.tensor([1.0, float("nan"), float("inf")]), "b": torch.ones(2)}
    torch.save(
        {"model": broken, "trainer": [np.float64("nan"), np.full(2, -np.inf)]}, tmp_path / "w"
    )
    verdict = verify(tmp_path / "w")
    assert verdict.findings == [
        "model.a: 2 of 3 numbers are NaN or infinite",
        "trainer.1: 2 of 2 numbers are NaN or infinite",
    ]
    assert not any("finite" in line for line in verdict.checked)


def test_a_changed_byte(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.full((999,), 1.5)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((9,), 1.5).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    (finding,) = verify(path).findings
    assert finding.endswith("data/0 has changed: it does not have its CRC")


def test_checksums(tmp_path):
    path = _run(tmp_path / "w.pth")
    right = verify(path).sha256
    for given in (right, right[:8].upper()):
        assert "its sha256 is the given one" in verify(path, given).checked
    (finding,) = verify(path, "0" * 8).findings
    assert finding == f"its sha256 is {right}, expected 00000000"
    (tmp_path / "SHA256SUMS").write_text(f"{right}  w.pth\n")
    assert "its sha256 is what SHA256SUMS says" in verify(path).checked
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  w.pth\n")
    (finding,) = verify(path).findings
    assert "not the file that was published" in finding
    for wrong in ("0" * 7, "0" * 65, "xyzxyzxy"):
        with pytest.raises(UsageError, match="8 to 64 hexadecimal"):
            verify(path, wrong)


def test_a_tensor_of_more_numbers_than_the_file_has(tmp_path):
    """A view that repeats one number takes no memory until somebody looks at each."""
    torch.save({"a": torch.ones(1).expand(1 << 40)}, tmp_path / "w.pth")
    (finding,) = verify(tmp_path / "w.pth").findings
    assert finding == "a of shape (1099511627776,) has fewer numbers in the file"
    assert contents(tmp_path / "w.pth").total.parameters == 1 << 40


def test_no_tensors_and_no_weights(tmp_path):
    torch.save({"a": 1}, tmp_path / "w.pth")
    assert verify(tmp_path / "w.pth").findings == ["it holds no tensors"]
    (tmp_path / "w.pth").write_bytes(b"text")
    (finding,) = verify(tmp_path / "w.pth").findings
    assert "neither a file of torch.save" in finding
    with pytest.raises(UsageError, match="does not exist"):
        verify(tmp_path / "nowhere")

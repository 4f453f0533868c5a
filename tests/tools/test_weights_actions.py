"""`weights show`, `transfer`, `verify`, and `convert` to safetensors, from the command line."""

from __future__ import annotations

import argparse
import json
import os
import pickle

import pytest
import torch

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.checkpoint import Checkpointer
from mask_rcnn_ext.engine.trained import load_trained
from mask_rcnn_ext.engine.weights import build_on_cpu, read_checkpoint
from mask_rcnn_ext.engine.weights.known_classes import guess_classes
from mask_rcnn_ext.tools import weights

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
BOXES = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "False"]
MASK = "roi_heads.mask_head.predictor.weight"


def _call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    weights.add_arguments(parser)
    return weights.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """As in Detectron2's zoo: 80 classes, without their names."""
    path = tmp_path_factory.mktemp("zoo") / "coco.pkl"
    torch.manual_seed(3)
    model = build_on_cpu(load_config(CONFIG, ["MODEL.ROI_HEADS.NUM_CLASSES", "80", *BOXES]))
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}))
    return path


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A checkpoint of ours, nine classes with names."""
    path = tmp_path_factory.mktemp("run") / "model.pth"
    torch.manual_seed(4)
    model = build_on_cpu(load_config(CONFIG, BOXES))
    names = [f"shape {letter}" for letter in "abcdefghi"]
    torch.save({"model": model.state_dict(), "class_names": names, "iteration": 9}, path)
    return path


def test_coco_to_cityscapes(coco, tmp_path, capsys):
    output, report = tmp_path / "start.pth", tmp_path / "report.json"
    call = ["transfer", "--config-file", CONFIG, "--weights", coco, "--output", output]
    call += ["--to-dataset", "cityscapes_fine_instance_seg_train", "--json", report, *BOXES]
    assert _call(*call) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "80 classes (not in the file; COCO's list has as many)" in out
    assert "7 of 8 classes are carried over by name:" in out
    assert "  rider       random start\n" in out
    assert "  motorcycle  from the weights\n" in out
    assert "missing" not in out
    said = json.loads(report.read_text())
    assert [name for name, origin in said["classes"].items() if origin == "random"] == ["rider"]

    written = read_checkpoint(output)
    assert written["class_names"] == guess_classes(8)[1]
    before = pickle.loads(coco.read_bytes())["model"]
    new = written["model"]
    for name, place in {"person": 0, "car": 2, "bicycle": 1}.items():
        mine = written["class_names"].index(name)
        assert torch.equal(new[MASK][mine], torch.from_numpy(before[MASK][place]))
        box = "roi_heads.box_predictor.bbox_pred.weight"
        theirs = torch.from_numpy(before[box][4 * place : 4 * place + 4])
        assert torch.equal(new[box][4 * mine : 4 * mine + 4], theirs)
    heads = ("roi_heads.box_predictor", "roi_heads.mask_head.predictor")
    others = [name for name in before if not name.startswith(heads)]
    assert all(torch.equal(new[name], torch.from_numpy(before[name])) for name in others)
    model = build_on_cpu(load_config(CONFIG, ["MODEL.ROI_HEADS.NUM_CLASSES", "8", *BOXES]))
    assert set(new) == set(model.state_dict())
    Checkpointer(model).load(str(output))

    first = output.read_bytes()
    torch.manual_seed(77)
    assert _call(*call[:7], "--force", *call[7:]) == 0
    assert {k: v.tolist() for k, v in torch.load(output)["model"].items() if k == MASK} == {
        MASK: new[MASK].tolist()
    }
    assert len(output.read_bytes()) == len(first)


def test_classes_that_are_listed(shapes, tmp_path, capsys):
    output = tmp_path / "o.safetensors"
    call = ["transfer", "--config-file", CONFIG, "--weights", shapes, "--output", output]
    assert _call(*call, "--classes", "shape i, new", *BOXES) == 0
    assert "1 of 2 classes" in capsys.readouterr().out
    written = read_checkpoint(output)
    assert written["class_names"] == ["shape i", "new"]
    assert torch.equal(written["model"][MASK][0], torch.load(shapes)["model"][MASK][8])
    renamed = [*call[:5], "--output", tmp_path / "p.pth", "--classes", "z,y", "--from-classes"]
    assert _call(*renamed, "a,b,c,d,e,f,g,y,z", *BOXES) == 0
    renamed = read_checkpoint(tmp_path / "p.pth")["model"][MASK]
    assert torch.equal(renamed, torch.load(shapes)["model"][MASK][[8, 7]])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--classes", "x,y"], 1, "no class of the weights has the name of a new one"),
        (["--classes", "x,,y"], 2, "names with a comma between"),
        (["--classes", "x,y,x"], 2, "x more than once"),
        (["--to-dataset", "nowhere"], 2, "nowhere"),
        (["--classes", "x", "--from-classes", "x,y"], 2, "2 class names for the weights"),
    ],
)
def test_transfers_that_end_with_a_message(shapes, tmp_path, capsys, options, code, message):
    output = tmp_path / "o.pth"
    call = ["transfer", "--config-file", CONFIG, "--weights", shapes, "--output", output]
    assert _call(*call, *options, *BOXES) == code
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_unknown_classes_and_no_classes(shapes, tmp_path, capsys):
    bare = tmp_path / "bare.pth"
    state = torch.load(shapes)["model"]
    torch.save(state, bare)
    call = ["transfer", "--config-file", CONFIG, "--weights", bare, "--output", tmp_path / "o.pth"]
    assert _call(*call, "--classes", "x", *BOXES) == 2
    assert "9 classes and do not say which. Give --from-dataset" in capsys.readouterr().err
    torch.save({n: v for n, v in state.items() if n.startswith("backbone")}, bare)
    assert _call(*call, "--classes", "x", *BOXES) == 1
    assert "has no class outputs" in capsys.readouterr().err


def test_show(shapes, capsys):
    assert _call("show", shapes) == 0
    out = capsys.readouterr().out
    assert "classes    9: shape a, shape b" in out
    assert "iteration  9" in out
    assert "proposal_generator" in out
    keys = ["--opts", *BOXES, "MODEL.ROI_HEADS.NUM_CLASSES", "3"]
    assert _call("show", shapes, "--json", "--config-file", CONFIG, *keys) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["iteration"] == 9
    assert said["parts"]["roi_heads.mask_head"]["tensors"] > 2
    assert {row["model"] for row in said["model"]["other_shape"]} == {
        f"roi_heads.{layer}.{end}"
        for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
        for end in ("weight", "bias")
    }
    assert _call("show", shapes, "--config-file", CONFIG, *keys) == 0
    assert "other shape, not loaded (6):" in capsys.readouterr().out


def test_verify(shapes, tmp_path, capsys):
    assert _call("verify", shapes) == 0
    out = capsys.readouterr().out
    assert "FINDING" not in out
    digest = out.split("sha256 ")[-1].split()[0]
    assert _call("verify", shapes, "--sha256", digest) == 0
    assert _call("verify", shapes, "--sha256", "0" * 64) == 1
    assert f"FINDING: its sha256 is {digest}" in capsys.readouterr().out
    state = {str(i): torch.tensor(float("nan")) for i in range(25)}
    torch.save(state, tmp_path / "w.pth")
    assert _call("verify", tmp_path / "w.pth") == 1
    out = capsys.readouterr().out
    assert out.count("FINDING") == 20
    assert "and 5 findings more" in out
    assert _call("verify", tmp_path / "nowhere.pth") == 2


def test_convert_to_safetensors(shapes, tmp_path, capsys):
    output = tmp_path / "o.safetensors"
    call = ["--config-file", CONFIG, "--weights", shapes, "--output", output]
    assert _call("convert", *call, "--strict", *BOXES) == 0
    written, before = read_checkpoint(output), torch.load(shapes)
    assert written["class_names"] == before["class_names"]
    assert written["__author__"] == "mask_rcnn_ext"
    assert written["conversion"] == {"source": "model.pth", "kind": "detectron2"}
    assert set(written["model"]) == set(before["model"])
    assert all(torch.equal(written["model"][name], v) for name, v in before["model"].items())
    # without the outputs the names would promise what the file has not
    call[5] = tmp_path / "p.pth"
    assert _call("convert", *call, *BOXES, "MODEL.ROI_HEADS.NUM_CLASSES", "3") == 0
    assert "class_names" not in read_checkpoint(tmp_path / "p.pth")
    trained = load_trained(CONFIG, output, BOXES, device="cpu")
    assert trained.class_names == before["class_names"]


class _Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_action_runs_a_hostile_file(tmp_path, capsys):
    mark, path, output = tmp_path / "mark", tmp_path / "w.pth", tmp_path / "o.pth"
    torch.save({"model": {"a": torch.ones(1)}, "hook": _Touch(mark)}, path)
    build = ["--config-file", CONFIG, "--weights", path, "--output", output]
    for words in (
        ["show", path],
        ["verify", path],
        ["convert", *build],
        ["transfer", *build, "--classes", "a"],
    ):
        assert _call(*words) == 1
        out, err = capsys.readouterr()
        assert "mkdir" in out + err
    assert not mark.exists()
    assert not output.exists()

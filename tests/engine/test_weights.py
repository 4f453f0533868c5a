"""Published weights: reading executes nothing, names are found, pixels are compared."""

from __future__ import annotations

import os
import pickle
import re

import numpy as np
import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.checkpoint import Checkpointer
from mask_rcnn_ext.engine.weights import build_on_cpu, convert, read_weights, recognise, save
from mask_rcnn_ext.engine.weights.fetch import local_path
from mask_rcnn_ext.engine.weights.report import counts_by_part, part_of, warnings
from mask_rcnn_ext.engine.weights.torchvision_names import to_detectron2
from mask_rcnn_ext.errors import UsageError, UserError

R18 = "configs/COCO-InstanceSegmentation/mask_rcnn_R_18_FPN_1x.yaml"
R50 = "configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
C4 = "configs/COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
# the parts around the backbone as small as they can be
SMALL = ["MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.FPN.OUT_CHANNELS", "32"]
# a ResNet-50 with an eighth of the channels everywhere
THIN = ["MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32"]
THIN += ["MODEL.RESNETS.WIDTH_PER_GROUP", "8"]
STAGES = "['res2', 'res3', 'res4', 'res5']"


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_with_numpy_values(tmp_path, zipped):
    path = tmp_path / "a.pth"
    content = {"model": torch.nn.Linear(2, 2).state_dict(), "best": np.float64(1.5)}
    content["array"] = np.arange(3)
    before = torch.serialization.get_safe_globals()
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_weights(path)
    assert torch.equal(read["model"]["weight"], content["model"]["weight"])
    assert read["best"] == 1.5
    np.testing.assert_array_equal(read["array"], np.arange(3))
    assert set(torch.serialization.get_safe_globals()) == set(before)


class _Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _hostile(tmp_path, form):
    path, mark = tmp_path / "hostile", tmp_path / "mark"
    content = {"model": {"a": torch.ones(1)}, "hook": _Touch(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"a": np.ones(1), "hook": _Touch(mark)}))
    elif form == "protocol 0":
        path.write_bytes(pickle.dumps({"a": 1, "hook": _Touch(mark)}, 0))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch zip")
    return path, mark


@pytest.mark.parametrize("form", ["pickle", "protocol 0", "torch zip", "torch legacy"])
def test_a_hostile_file_is_named_and_not_executed(tmp_path, form):
    path, mark = _hostile(tmp_path, form)
    if form.startswith("torch"):
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert mark.exists(), "the file of this test is harmless"
    mark.rmdir()
    with pytest.raises(UserError, match=r"hostile was not read.*(posix|nt)\.mkdir"):
        read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html>", "neither a file of torch.save nor a pickle.*<!DOCTYPE"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04 and nothing else", "damaged, cut short or no checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_cut_short(tmp_path, form, share):
    path = tmp_path / "a"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"a": np.ones(1000), "b": np.ones(9)}))
    else:
        torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="damaged, cut short|neither a file") as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(UsageError, match="nowhere.pth does not exist"):
        read_weights(tmp_path / "nowhere.pth")
    with pytest.raises(UsageError, match="is a folder"):
        read_weights(tmp_path)


# --- fetching ------------------------------------------------------------------------------------


def test_a_fetched_file_is_found_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    cached = tmp_path / "detectron2" / "ImageNetPretrained" / "mine" / "R.pkl"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"x")
    assert local_path("detectron2://ImageNetPretrained/mine/R.pkl") == cached


@pytest.mark.parametrize(
    ("name", "url", "place"),
    [
        ("detectron2://a/R-50.pkl", "https://dl.fbaipublicfiles.com/detectron2/a/R-50.pkl",
         "detectron2/a/R-50.pkl"),
        ("https://example.org/w/b.pth", "https://example.org/w/b.pth", "w/b.pth"),
        ("catalog://ImageNetPretrained/MSRA/R-50",
         "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl",
         "detectron/ImageNetPretrained/MSRA/R-50.pkl"),
    ],
)  # fmt: skip
def test_without_a_network(tmp_path, monkeypatch, name, url, place):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))

    def no_network(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("iopath.common.file_io.download", no_network)
    with pytest.raises(UserError) as caught:
        local_path(name)
    message = str(caught.value)
    assert f"cannot fetch {name} (Name or service not known)" in message
    assert f"Fetch {url} on a machine" in message
    assert f"put it at {tmp_path / place}," in message


@pytest.mark.parametrize("name", ["s3://bucket/a.pth", "catalog://nothing/there"])
def test_names_that_nobody_can_fetch(name):
    with pytest.raises(UsageError, match="expected a path|not in Detectron2's model catalog"):
        local_path(name)


# --- torchvision ---------------------------------------------------------------------------------


def _randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Statistics and affine parts as a training leaves them: none is 0 or 1."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | FrozenBatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def _trunk(model: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = {}
    for i in range(1, 5):
        x = features[f"res{i + 1}"] = getattr(model, f"layer{i}")(x)
    return features


def _keys(name: str) -> list[str]:
    keys = ["MODEL.RESNETS.OUT_FEATURES", STAGES, "MODEL.RESNETS.STRIDE_IN_1X1", "False"]
    if name == "resnet18":
        return [*keys, "MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    if name == "resnet50":
        return [*keys, "MODEL.RESNETS.DEPTH", "50"]
    depth, groups, width = re.fullmatch(r"resnext(\d+)_(\d+)x(\d+)d", name).groups()
    keys += ["MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.NUM_GROUPS", groups]
    return [*keys, "MODEL.RESNETS.WIDTH_PER_GROUP", width]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_torchvisions_features_are_detectron2s(tmp_path, name, norm):
    theirs = _randomized(torchvision.models.get_model(name, weights=None)).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone(load_config("", [*_keys(name), "MODEL.RESNETS.NORM", norm])).eval()
    source = recognise(read_weights(tmp_path / "w.pth"), "w.pth")
    assert source.kind == "torchvision"
    missing, unexpected = backbone.load_state_dict(source.tensors, strict=False)
    assert missing == []
    assert all(n.startswith("linear.") or n.endswith("num_batches_tracked") for n in unexpected)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = _trunk(theirs, image)
        for stage, feature in backbone(image).items():
            torch.testing.assert_close(feature, expected[stage], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnext101_64x4d", "resnext101_32x8d"])
def test_every_tensor_of_the_big_resnexts_has_its_place(name):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
        ours = build_backbone(load_config("", _keys(name))).state_dict()
    renamed = {to_detectron2(n): v.shape for n, v in theirs.items() if "num_batches" not in n}
    assert renamed.pop("linear.weight") == (1000, 2048)
    renamed.pop("linear.bias")
    assert renamed == {n: v.shape for n, v in ours.items()}


def test_torchvision_weights_in_a_non_local_network(tmp_path):
    theirs = torchvision.models.resnet50(weights=None)
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}},
               tmp_path / "w.pth")  # fmt: skip
    cfg = load_config(R50, [*SMALL, "MODEL.BACKBONE.NAME", "build_nonlocal_resnet_fpn_backbone"])
    done = convert(cfg, str(tmp_path / "w.pth"))
    parts = counts_by_part(done.matching)
    for part in ("stem", "res2", "res3", "res4", "res5"):
        row = parts.pop(f"backbone.{part}")
        assert row["matched"] > 0
        assert row["missing"] == row["other shape"] == row["filled"] == 0
    assert parts["backbone.res4.non_local"]["missing"] == 6
    assert all(row["matched"] == 0 for row in parts.values())
    assert done.matching.left_over == ["linear.weight", "linear.bias"]
    assert done.source.original["linear.weight"] == "module.fc.weight"
    assert torch.equal(
        done.state["backbone.bottom_up.res4.0.shortcut.weight"],
        theirs.state_dict()["layer3.0.downsample.0.weight"],
    )


# --- Caffe2 --------------------------------------------------------------------------------------


def _to_caffe2(backbone_state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """As MSRA's models are published: weight and bias of a norm, statistics absorbed."""
    old = {}
    for name, value in backbone_state.items():
        if "running" in name or "num_batches" in name:
            continue
        *where, layer = re.sub(r"\.(norm\.)?(weight|bias)$", "", name).split(".")
        if where == ["stem"]:
            blob = "res_conv1" if ".norm." in name else "conv1"
        else:
            branch = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b"}
            blob = "_".join([*where, branch.get(layer, "branch2c")])
        blob += "_bn" * (".norm." in name)
        ending = "b" if name.endswith("bias") else "s" if ".norm." in name else "w"
        old[f"{blob}_{ending}"] = value.numpy()
    return old


@pytest.fixture(scope="module")
def thin_resnet50() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    cfg = load_config("", [*THIN, "MODEL.RESNETS.OUT_FEATURES", STAGES])
    return _randomized(build_backbone(cfg)).state_dict()


def _pickled(path, content) -> str:
    path.write_bytes(pickle.dumps(content, 2))
    return str(path)


@pytest.mark.parametrize("config", [R50, C4])
def test_caffe2_equals_detectron2s_own_loading(tmp_path, thin_resnet50, config):
    blobs = {**_to_caffe2(thin_resnet50), "fc1000_w": np.ones((1000, 256), np.float32)}
    path = _pickled(tmp_path / "R-50.pkl", blobs)
    cfg = load_config(config, [*SMALL, *THIN])
    done = convert(cfg, path)
    assert done.source.kind == "caffe2"
    assert [done.source.original[n] for n in done.matching.left_over] == ["fc1000_w"]
    assert all(part_of(n).startswith(("backbone.", "roi_heads.res5")) for n in done.state)
    assert not any(
        part_of(n).startswith(("backbone.res", "backbone.stem", "roi_heads.res5"))
        for n in done.matching.missing
    )
    save(done.state, tmp_path / "o.pth")

    by_detectron2, by_us = build_on_cpu(cfg), build_on_cpu(cfg)
    DetectionCheckpointer(by_detectron2).load(path)
    Checkpointer(by_us).load(str(tmp_path / "o.pth"))
    theirs, ours = by_detectron2.state_dict(), by_us.state_dict()
    for name in done.state:
        # its running_var is 1 or 1 - eps, by version; ours cancels the eps
        tolerance = 2e-5 if name.endswith("running_var") else 0
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=tolerance)
        assert torch.equal(ours[name], done.state[name])


def test_absorbed_statistics_leave_weight_and_bias_alone(tmp_path, thin_resnet50):
    path = _pickled(tmp_path / "R-50.pkl", _to_caffe2(thin_resnet50))
    done = convert(load_config(R50, [*SMALL, *THIN]), path)
    stem = "backbone.bottom_up.stem.conv1.norm"
    norm = FrozenBatchNorm2d(8)
    norm.load_state_dict(
        {k: done.state[f"{stem}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
    )
    x = torch.randn(1, 8, 3, 3)
    w, b = (thin_resnet50[f"stem.conv1.norm.{k}"][:, None, None] for k in ("weight", "bias"))
    torch.testing.assert_close(norm(x), x * w + b, rtol=1e-6, atol=1e-6)

    trained_norms = convert(load_config(R50, [*SMALL, *THIN, "MODEL.RESNETS.NORM", "BN"]), path)
    # FREEZE_AT 2: the norms of stem and res2 are frozen ones
    assert {part_of(n) for n in trained_norms.matching.filled} == {"backbone.stem", "backbone.res2"}
    found = warnings(trained_norms.source, trained_norms.matching, trained_norms.needs)
    assert any("MODEL.RESNETS.NORM FrozenBN" in text for text in found)


def test_a_detectron1_model_and_its_background(tmp_path):
    blobs = {
        "res2_0_branch2a_w": np.ones((64, 64, 1, 1), np.float32),
        "cls_score_w": np.arange(81, dtype=np.float32)[:, None] * np.ones((1, 1024), np.float32),
        "cls_score_b": np.arange(81, dtype=np.float32),
        "bbox_pred_b": np.arange(81 * 4, dtype=np.float32),
        "fpn_inner_res5_2_sum_w": np.ones((256, 2048, 1, 1), np.float32),
        "conv_rpn_fpn2_b": np.full(256, 7, np.float32),
        "cls_score_b_momentum": np.zeros(81, np.float32),
    }
    done = convert(
        load_config(R50), _pickled(tmp_path / "m.pkl", {"blobs": blobs, "cfg": "MODEL: {}"})
    )
    assert done.source.kind == "detectron1"
    assert done.source.skipped == ["cls_score_b_momentum"]
    score = done.state["roi_heads.box_predictor.cls_score.bias"]
    assert score.tolist() == [*range(1, 81), 0]  # background from first to last
    assert done.state["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [*range(4, 324)]
    assert done.state["backbone.fpn_lateral5.weight"].shape == (256, 2048, 1, 1)
    assert done.state["proposal_generator.rpn_head.conv.bias"].tolist() == [7] * 256
    assert done.matching.left_over == []
    means = [need.expected for need in done.needs if need.key == "MODEL.PIXEL_MEAN"]
    assert means == [([102.9801, 115.9465, 122.7717],)]


# --- Detectron2 ----------------------------------------------------------------------------------


def test_a_checkpoint_of_detectron2_is_taken_by_whole_names(tmp_path):
    cfg = load_config(R18, SMALL)
    model = _randomized(build_on_cpu(cfg))
    Checkpointer(model, str(tmp_path)).save("model_final", iteration=3)
    done = convert(cfg, str(tmp_path / "model_final.pth"))
    assert (done.source.kind, done.source.by_suffix) == ("detectron2", False)
    assert done.matching.missing == done.matching.left_over == []
    assert not done.matching.mismatched
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(done.state[name], value)
    assert not any(need.key.startswith(("INPUT", "MODEL.PIXEL")) for need in done.needs)


def test_another_number_of_classes_is_another_shape(tmp_path):
    model = build_on_cpu(load_config(R18, SMALL))
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    done = convert(
        load_config(R18, [*SMALL, "MODEL.ROI_HEADS.NUM_CLASSES", "3"]), str(tmp_path / "a.pth")
    )
    name = "roi_heads.box_predictor.cls_score.weight"
    assert done.matching.mismatched[name] == (name, (81, 32), (4, 32))
    assert {part_of(n) for n in done.matching.mismatched} == {
        "roi_heads.box_predictor",
        "roi_heads.mask_head",
    }
    assert done.matching.missing == []
    assert not set(done.matching.mismatched) & set(done.state)


def test_a_zoo_pickle_with_its_own_pixel_statistics(tmp_path):
    state = {k: v.numpy() for k, v in build_on_cpu(load_config(R18, SMALL)).state_dict().items()}
    state["pixel_mean"] = np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1)
    state["pixel_std"] = np.ones((3, 1, 1), np.float32)
    path = _pickled(tmp_path / "m.pkl", {"model": state, "__author__": "Detectron2 Model Zoo"})
    done = convert(load_config(R18, SMALL), path)
    needs = {need.key: (need.expected[0], need.met) for need in done.needs}
    assert needs["INPUT.FORMAT"] == ("BGR", False)  # the R-18 config is RGB
    assert needs["MODEL.PIXEL_STD"] == ([1, 1, 1], False)
    assert needs["MODEL.RESNETS.DEPTH"] == (18, True)
    assert done.source.author == "Detectron2 Model Zoo"


def test_the_zoos_torchvision_pickle(tmp_path, thin_resnet50):
    state = {k: v.numpy() for k, v in thin_resnet50.items()}
    content = {"model": state, "__author__": "torchvision", "matching_heuristics": True}
    done = convert(load_config(R50, [*SMALL, *THIN]), _pickled(tmp_path / "R-50.pkl", content))
    assert done.source.kind == "torchvision"
    assert len(done.matching.matched) == len(state)


def test_what_is_saved_is_a_copy_of_its_own_size(tmp_path):
    big = torch.zeros(1_000_000)
    state = {
        k: v for k, v in build_on_cpu(load_config(R18, SMALL)).state_dict().items() if "fc2" in k
    }
    shared = {k: big[: v.numel()].view(v.shape) for k, v in state.items() if k.endswith("bias")}
    torch.save({"model": shared}, tmp_path / "a.pth")
    done = convert(load_config(R18, SMALL), str(tmp_path / "a.pth"))
    save(done.state, tmp_path / "o.pth", source="a.pth")
    assert (tmp_path / "o.pth").stat().st_size < 20_000
    assert torch.load(tmp_path / "o.pth")["conversion"] == {"source": "a.pth"}


def test_arrays_that_torch_does_not_take_as_they_are():
    arrays = {
        "stem.a": np.arange(3, dtype=">f4"),
        "stem.b": np.arange(6.0).reshape(2, 3)[::-1],
        "stem.c": np.array(2.0),
        "stem.d": np.ones(2, np.longdouble),
    }
    source = recognise(arrays, "w")
    assert source.tensors["stem.a"].tolist() == [0, 1, 2]
    assert source.tensors["stem.b"].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert source.tensors["stem.c"].shape == ()
    assert source.skipped == (["stem.d"] if np.dtype(np.longdouble).itemsize > 8 else [])


@pytest.mark.parametrize("content", [[1, 2], {"a": 1, "b": "text"}, {}, {"model": {}}])
def test_a_file_without_weights(content):
    with pytest.raises(UserError, match="expected a state dict"):
        recognise(content, "a.pkl")


# --- what the weights need -----------------------------------------------------------------------


def _needs(cfg, state) -> dict[str, tuple]:
    from mask_rcnn_ext.engine.weights.requirements import requirements

    return {n.key: (n.expected, n.met) for n in requirements(recognise(state, "w"), cfg)}


def test_torchvisions_needs_in_detectron2s_default_config():
    with torch.device("meta"):
        state = torchvision.models.resnext101_64x4d(weights=None).state_dict()
    found = _needs(load_config(R50, SMALL), state)
    assert found == {
        "MODEL.RESNETS.DEPTH": ((101,), False),
        "MODEL.RESNETS.NUM_GROUPS": ((64,), False),
        "MODEL.RESNETS.WIDTH_PER_GROUP": ((4,), False),
        "MODEL.RESNETS.STRIDE_IN_1X1": ((False,), False),
        "INPUT.FORMAT": (("RGB",), False),
        "MODEL.PIXEL_MEAN": (([123.675, 116.28, 103.53],), False),
        "MODEL.PIXEL_STD": (([58.395, 57.12, 57.375],), False),
    }


def test_the_r18_config_is_ready_for_torchvision():
    with torch.device("meta"):
        state = torchvision.models.resnet18(weights=None).state_dict()
    found = _needs(load_config(R18, SMALL), state)
    assert set(found) == {
        "MODEL.RESNETS.DEPTH", "INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"
    }  # fmt: skip
    assert all(met for _, met in found.values())


def test_msras_needs_are_detectron2s_defaults(thin_resnet50):
    found = _needs(load_config(R50, THIN), _to_caffe2(thin_resnet50))
    assert found["MODEL.RESNETS.STRIDE_IN_1X1"] == ((True,), True)
    assert found["INPUT.FORMAT"] == (("BGR",), True)
    assert len(found) == 7
    assert all(met for _, met in found.values())


def test_fairs_resnext_has_two_published_scales():
    keys = _keys("resnext101_32x8d")
    with torch.device("meta"):
        state = build_backbone(load_config("", keys)).state_dict()
    state = _to_caffe2({k: torch.empty_like(v, device="cpu") for k, v in state.items()})
    bgr_std = ([57.375, 57.12, 58.395], [1, 1, 1])
    found = _needs(load_config("", keys), state)
    assert found["MODEL.PIXEL_STD"] == (bgr_std, True)
    assert all(met for _, met in found.values())
    zoo = [*keys, "MODEL.PIXEL_STD", "[57.375, 57.12, 58.395]"]
    assert _needs(load_config("", zoo), state)["MODEL.PIXEL_STD"] == (bgr_std, True)
    wrong = [*keys, "MODEL.PIXEL_STD", "[58.395, 57.12, 57.375]"]
    assert _needs(load_config("", wrong), state)["MODEL.PIXEL_STD"] == (bgr_std, False)


def test_a_deeper_networks_blocks_are_warned_of(tmp_path):
    state = torchvision.models.resnet34(weights=None).state_dict()
    torch.save(state, tmp_path / "w.pth")
    done = convert(load_config(R18, SMALL), str(tmp_path / "w.pth"))
    # R-18's blocks all find numbers: without the warning this would look like a success.
    assert not any("bottom_up" in name for name in done.matching.missing)
    found = warnings(done.source, done.matching, done.needs)
    assert any("MODEL.RESNETS.DEPTH is 18, these weights need 34" in text for text in found)
    assert any("residual blocks that the model does not have" in text for text in found)

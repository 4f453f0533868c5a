"""Two runs with the switch give the same bits on a CPU; on a GPU the rest is listed."""

from __future__ import annotations

import os

import pytest
import torch
from black_box_step import batch_of, config
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine import deterministic
from mask_rcnn_ext.engine.deterministic import make_deterministic, remaining_sources
from mask_rcnn_ext.ops import kernels


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn, fill = torch.backends.cudnn, torch.utils.deterministic.fill_uninitialized_memory
    before = (cudnn.deterministic, cudnn.benchmark)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    cudnn.deterministic, cudnn.benchmark = before


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("device", "warns"), [("cpu", False), ("cuda", True)])
def test_what_is_switched(device, warns):
    torch.backends.cudnn.benchmark = True
    make_deterministic(device)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() is warns
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_a_workspace_that_is_fixed_already_is_kept(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    make_deterministic("cpu")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    make_deterministic("cpu")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def _gradient_of_index() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 256, generator=generator, requires_grad=True)
    index = torch.randint(0, 50, (20000,), generator=generator)
    (x[index] * torch.randn(20000, 256, generator=generator)).sum().backward()
    return x.grad


def test_the_one_operation_that_sums_in_any_order_has_an_order(two_threads):
    """Without the switch twelve passes gave twelve results here, with two threads."""
    make_deterministic("cpu")
    first = _gradient_of_index()
    assert all(torch.equal(first, _gradient_of_index()) for _ in range(4))


def _train(steps: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    model = build_model(config()).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for iteration in range(steps):
        with EventStorage(iteration):
            loss = sum(model(batch_of()).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_trainings_end_with_the_same_bits(two_threads, threads):
    make_deterministic("cpu")
    torch.set_num_threads(threads)
    one, two = _train(), _train()
    assert all(torch.equal(one[name], two[name]) for name in one)
    torch.manual_seed(1)
    untrained = build_model(config()).state_dict()
    assert not torch.equal(one["roi_heads.mask_head.predictor.weight"],
                           untrained["roi_heads.mask_head.predictor.weight"])  # fmt: skip


def test_inference_has_no_operation_without_an_order():
    make_deterministic("cpu")  # which raises for one
    model = build_model(config("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)).eval()
    with torch.no_grad():
        assert len(model(batch_of(1))[0]["instances"]) > 0


def _cuda(*overrides):
    words = ["MODEL.DEVICE", "cuda", *overrides]
    return load_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", words)


def test_nothing_is_left_on_a_cpu():
    cfg = load_config("Ablations/mask_rcnn_R_50_FPN_iccv_roipool.yaml", ["MODEL.DEVICE", "cpu"])
    assert remaining_sources(cfg, processes=4) == []


@pytest.fixture
def triton(monkeypatch):
    monkeypatch.setattr(kernels, "is_available", lambda: (True, "pretended"))


@pytest.mark.parametrize(
    ("overrides", "processes", "operations"),
    [
        ([], 1, []),
        ([], 8, ["sums over several GPUs"]),
        (["MODEL.COMPILE", "True"], 1, ["torch.compile"]),
        (["MODEL.ROI_MASK_HEAD.POOLER_TYPE", "RoIPool"], 1,
         ["RoIPool of MODEL.ROI_MASK_HEAD, backward"]),
        (["MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIPool", "MODEL.MASK_ON", "False"], 1, []),
        (["MODEL.META_ARCHITECTURE", "ProposalNetwork", "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
          "ROIPool"], 1, []),
        (["MODEL.RESNETS.DEFORM_ON_PER_STAGE", "[False, False, True, True]"], 1,
         ["deformable convolution, backward"]),
    ],
)  # fmt: skip
def test_what_is_left_on_a_gpu(triton, overrides, processes, operations):
    found = remaining_sources(_cuda(*overrides), processes)
    assert [source.operation for source in found] == operations
    assert all(source.reason and source.remedy for source in found)


def test_without_triton_the_roi_layers_are_named(monkeypatch):
    monkeypatch.setattr(kernels, "is_available", lambda: (False, "not installed"))
    found = remaining_sources(_cuda())
    assert [source.operation for source in found] == [
        "RoIAlignV2 of MODEL.ROI_BOX_HEAD, backward",
        "RoIAlignV2 of MODEL.ROI_MASK_HEAD, backward",
    ]
    assert "not installed" in found[0].reason


def test_every_remedy_that_is_a_key_removes_its_source(triton):
    for overrides in (
        ["MODEL.COMPILE", "True"],
        ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "RoIPool"],
        ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", "[True, False, False, False]"],
    ):
        (source,) = remaining_sources(_cuda(*overrides))
        key, _, value = source.remedy.partition(" ")
        assert remaining_sources(_cuda(*overrides, key, value)) == []
    assert deterministic.Source._fields == ("operation", "reason", "remedy")


@pytest.mark.gpu
def test_two_trainings_on_a_gpu_end_with_the_same_bits():
    make_deterministic("cuda")

    def train():
        torch.manual_seed(1)
        model = build_model(config("MODEL.DEVICE", "cuda")).train()
        with EventStorage(0):
            sum(model(batch_of()).values()).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(train(), train(), strict=True))

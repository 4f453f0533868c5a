"""The training step: what Detectron2's does, and in parts, and resumed."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from step_toys import From, histories, run_steps, same_bits, sgd, toy_batches, toy_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine import step as step_module
from mask_rcnn_ext.engine.optimizer import build_optimizer
from mask_rcnn_ext.engine.step import TrainStep, build_step, check_step_keys
from mask_rcnn_ext.engine.step_metrics import PendingMetrics
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling.sampling import draws

TINY = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


def _config(*overrides):
    return load_config(TINY, ["MODEL.DEVICE", "cpu", *map(str, overrides)])


def _samples(count: int, start: int = 0):
    """Images of 64 x 64 pixels with two objects each."""
    samples = []
    for number in range(start, start + count):
        generator = torch.Generator().manual_seed(number)
        truth = Instances((64, 64))
        truth.gt_boxes = Boxes(torch.tensor([[4.0, 6, 30, 28], [25, 20, 60, 58]]) + number % 3)
        truth.gt_classes = torch.tensor([number % 9, 3])
        masks = torch.zeros(2, 64, 64, dtype=torch.bool)
        masks[0, 8:26, 8:28] = masks[1, 24:52, 30:58] = True
        truth.gt_masks = BitMasks(masks)
        image = torch.randint(0, 255, (3, 64, 64), generator=generator, dtype=torch.uint8)
        samples.append({"image": image, "instances": truth, "image_id": number})
    return samples


def _real(cfg):
    torch.manual_seed(3)
    model = build_model(cfg)
    return model, build_optimizer(cfg, model)


def test_toy_equals_detectron2_bit_for_bit():
    ours, theirs = toy_model(), toy_model()
    loader = From(lambda: toy_batches(4))
    stored = run_steps(TrainStep(ours, loader, sgd(ours), log_period=3), 5)
    expected = run_steps(SimpleTrainer(theirs, loader, sgd(theirs)), 5)
    assert same_bits(ours, theirs)
    assert histories(stored) == histories(expected)
    assert set(histories(stored)) == {"total_loss", "loss_one", "loss_two"}
    assert len(stored.history("data_time").values()) == 5


def test_mask_rcnn_equals_detectron2_bit_for_bit():
    cfg = _config("SOLVER.FUSED", "auto")
    found = []
    for kind in (SimpleTrainer, TrainStep):
        model, optimizer = _real(cfg)
        trainer = kind(model, [_samples(2), _samples(2, 2)], optimizer)
        torch.manual_seed(11)
        found.append((model, run_steps(trainer, 2)))
    (theirs, expected), (ours, stored) = found
    assert same_bits(ours, theirs)
    assert histories(stored) == histories(expected)
    assert "loss_mask" in histories(stored)


def test_a_model_of_one_loss():
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, batch):
            return (self.weight * len(batch)).sum()

    model = One()
    loader = From(lambda: toy_batches(4))
    stored = run_steps(TrainStep(model, loader, sgd(model), parts=2), 1)
    assert histories(stored) == {"total_loss": [(2.0, 0)]}


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_equal_the_whole_batch(parts):
    whole, split = toy_model().double(), toy_model().double()

    def double():
        for batch in toy_batches(16):
            yield [s | {"image": s["image"].double(), "target": s["target"]} for s in batch]

    stored = [
        run_steps(TrainStep(model, From(double), sgd(model), parts=n), 6)
        for model, n in ((whole, 1), (split, parts))
    ]
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    expected, found = map(histories, stored)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert [i for _, i in values] == list(range(6))
        assert [v for v, _ in values] == pytest.approx([v for v, _ in expected[name]], rel=1e-5)


def test_box_and_proposal_losses_of_parts_equal_the_whole_batch():
    # With as many RoIs an image as asked for, all means have the same weights.
    cfg = _config(
        *("MODEL.MASK_ON", "False", "MODEL.RESNETS.NORM", "FrozenBN"),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8, "SOLVER.OPTIMIZER", "SGD"),
        *("SOLVER.BASE_LR", 1e-4),
    )
    found = []
    for parts in (1, 4):
        model, optimizer = _real(cfg)
        loader = [_samples(8), _samples(8, 8)]
        step = TrainStep(
            model, loader, optimizer, parts=parts, draws=lambda i, where: draws(5, i, where)
        )
        found.append((histories(run_steps(step, 2)), model))
    (whole, one), (split, other) = found
    assert whole.keys() == split.keys()
    for name in ("loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"):
        values = [v for v, _ in split[name]]
        assert values == pytest.approx([v for v, _ in whole[name]], rel=2e-4), name
    start, _ = _real(cfg)
    for before, a, b in zip(start.parameters(), one.parameters(), other.parameters(), strict=True):
        learned = float((a - before).detach().norm())
        assert float((a - b).detach().norm()) <= 1e-3 * learned + 1e-6
    assert learned > 0


def test_parts_have_their_positions_and_leave_the_last_backward_to_the_processes(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = DistributedDataParallel(toy_model())
        exchanged = []

        def hook(state, bucket):
            exchanged.append(bucket.buffer().clone())
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        model.register_comm_hook(None, hook)
        forwards = []

        def noting(iteration, positions):
            forwards.append((iteration, list(positions)))
            return contextlib.nullcontext()

        step = TrainStep(
            model,
            From(lambda: toy_batches(4)),
            sgd(model),
            parts=4,
            positions=[1, 3, 5, 7],
            draws=noting,
        )
        run_steps(step, 1)
        # DistributedDataParallel may cut the gradients in buckets; each is exchanged once.
        assert sum(bucket.numel() for bucket in exchanged) == sum(
            p.numel() for p in model.parameters()
        )
    finally:
        torch.distributed.destroy_process_group()
    assert forwards == [(0, [1]), (0, [3]), (0, [5]), (0, [7])]


def test_losses_wait_for_the_period_and_keep_their_iterations():
    model = toy_model()
    step = TrainStep(model, From(lambda: toy_batches(4)), sgd(model), log_period=3)
    with EventStorage() as storage:
        seen = []
        for storage.iter in range(5):
            step.iter = storage.iter
            step.run_step()
            values = histories(storage).get("total_loss", [])
            seen.append([i for _, i in values])
        assert seen == [[], [], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
        storage.iter = 9
        step.flush()
        step.flush()
        assert [i for _, i in histories(storage)["loss_one"]] == [0, 1, 2, 3, 4]
        assert storage.iter == 9
        assert storage.latest()["total_loss"][1] == 4


def test_processes_are_averaged_and_the_slowest_counts(monkeypatch):
    pending = PendingMetrics()
    pending.add(3, {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, 0.25)
    other = [(0.75, {"a": 2.0, "b": 6.0})]
    monkeypatch.setattr(comm, "gather", lambda own: [own, other])
    with EventStorage() as storage:
        pending.flush()
    values = {name: history.latest() for name, history in storage.histories().items()}
    assert values == {"data_time": 0.75, "total_loss": 5.5, "a": 1.5, "b": 4.0}
    assert len(pending) == 0


def test_what_the_model_logs_itself_is_the_mean_of_the_parts():
    class Talking(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, batch):
            storage = get_event_storage()
            assert storage.iter == 6
            storage.put_scalar("images", batch[0]["image_id"], smoothing_hint=False)
            if batch[0]["image_id"] == 0:
                storage.put_scalar("first", 5.0)
                storage.put_image("picture", torch.zeros(3, 2, 2))
            return {"loss": self.weight.sum()}

    model = Talking()
    stored = run_steps(
        TrainStep(model, From(lambda: toy_batches(4)), sgd(model), parts=4), 1, start=6
    )
    assert stored.latest()["images"] == (1.5, 6)
    assert stored.latest()["first"] == (5.0, 6)
    assert stored.smoothing_hints()["images"] is False
    assert [name for name, _, _ in stored._vis_data] == ["picture"]


@pytest.mark.parametrize("solver", ["SGD", "AdamW"])
def test_a_resumed_step_has_the_same_bits(solver, tmp_path):
    cfg = _config("SOLVER.OPTIMIZER", solver, "SOLVER.BASE_LR", 0.01)

    def start(skip_batches):
        model = toy_model()
        loader = toy_batches(4, bad=[1])
        for _ in range(skip_batches):
            next(loader)
        return model, TrainStep(
            model, loader, build_optimizer(cfg, model), parts=2, on_nonfinite="skip"
        )

    whole, step = start(0)
    run_steps(step, 6)
    model, first = start(0)
    run_steps(first, 3)
    torch.save({"model": model.state_dict(), "step": first.state_dict()}, tmp_path / "state.pth")

    loaded = torch.load(tmp_path / "state.pth", weights_only=True)
    model, second = start(3)
    model.load_state_dict(loaded["model"])
    second.load_state_dict(loaded["step"])
    assert second.skipped == 1
    run_steps(second, 3, start=3)
    assert same_bits(model, whole)
    for one, other in zip(
        step.optimizer.state.values(), second.optimizer.state.values(), strict=True
    ):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_state_is_not_saved_with_losses_in_the_air():
    model = toy_model()
    step = TrainStep(model, From(lambda: toy_batches(4)), sgd(model))
    with EventStorage():
        step.run_step()
        with pytest.raises(AssertionError, match="flush"):
            step.state_dict()
        step.flush()
    assert set(step.state_dict()) == {"iteration", "optimizer", "skipped"}


def test_a_checkpoint_of_detectron2_is_taken():
    model = toy_model()
    theirs = SimpleTrainer(model, From(lambda: toy_batches(4)), sgd(model))
    run_steps(theirs, 2)
    other = toy_model()
    ours = TrainStep(other, From(lambda: toy_batches(4)), sgd(other, fused=True))
    ours.load_state_dict(theirs.state_dict())
    assert (ours.iter, ours.skipped) == (1, 0)
    assert ours.optimizer.param_groups[0]["fused"] is True


def test_half_precision_survives_an_overflow_and_resumes():
    def start():
        model = toy_model()
        return model, TrainStep(
            model,
            From(lambda: toy_batches(4)),
            sgd(model, fused=True),
            parts=2,
            precision=torch.float16,
        )

    reference = toy_model()
    run_steps(TrainStep(reference, From(lambda: toy_batches(4)), sgd(reference)), 4)
    model, step = start()
    step._scaler.load_state_dict(step._scaler.state_dict() | {"scale": 2.0**40})
    before = [p.clone() for p in model.parameters()]
    run_steps(step, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert step._scaler.get_scale() == 2.0**39

    model, step = start()
    step._scaler.load_state_dict(step._scaler.state_dict() | {"scale": 64.0})  # no overflow
    run_steps(step, 4)
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.01)
    state = step.state_dict()
    state["grad_scaler"]["scale"] = 512.0
    _, other = start()
    other.load_state_dict(state)
    assert other._scaler.get_scale() == 512.0


@pytest.mark.parametrize("precision", [None, torch.float16])
def test_clipping_sees_the_true_gradients_of_the_whole_batch(precision):
    limits = ("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01)
    cfg = _config(
        *(*limits, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "SOLVER.OPTIMIZER", "SGD"),
        *("SOLVER.MOMENTUM", 0.0, "SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.0),
    )
    model, whole = toy_model(), toy_model()
    before = [p.detach().clone() for p in model.parameters()]
    step = TrainStep(
        model,
        From(lambda: toy_batches(8)),
        build_optimizer(cfg, model),
        parts=4,
        precision=precision,
    )
    if precision is not None:
        step._scaler.load_state_dict(step._scaler.state_dict() | {"scale": 64.0})  # no overflow
    run_steps(step, 1)
    sum(whole(next(toy_batches(8))).values()).backward()
    for now, old, true in zip(model.parameters(), before, whole.parameters(), strict=True):
        expected = true.grad * min(1.0, 0.01 / float(true.grad.norm()))
        change = old - now.detach()
        torch.testing.assert_close(change, expected, rtol=0.02, atol=1e-4)
        assert float(change.norm()) < 0.0101


def test_building_reads_the_config(monkeypatch):
    cfg = _config("SOLVER.IMS_PER_BATCH", 4, "SOLVER.ACCUMULATION_STEPS", 2, "LOG.PERIOD", 2)
    seen = []

    @contextlib.contextmanager
    def noting(seed, iteration, positions):
        seen.append((seed, iteration, list(positions)))
        yield

    class Loader(From):
        class dataset:
            seed = 1

    monkeypatch.setattr(step_module, "draws", noting)
    model = toy_model()
    step = build_step(cfg, model, Loader(lambda: toy_batches(4)), sgd(model))
    step.data_loader.dataset.seed = 8  # as resuming does
    with EventStorage() as storage:
        for step.iter in range(2):
            storage.iter = step.iter
            step.run_step()
    assert seen == [(8, 0, [0, 1]), (8, 0, [2, 3]), (8, 1, [0, 1]), (8, 1, [2, 3])]
    assert len(histories(storage)["total_loss"]) == 2


def test_an_amp_config_trains_in_bfloat16_on_a_cpu():
    cfg = _config("SOLVER.IMS_PER_BATCH", 2, "SOLVER.AMP.ENABLED", "True")
    model, optimizer = _real(cfg)
    dtypes = set()
    model.backbone.register_forward_hook(lambda *a: dtypes.update(x.dtype for x in a[2].values()))
    loader = [_samples(2)]
    step = TrainStep(model, loader, optimizer)
    plain = histories(run_steps(step, 1))
    model, optimizer = _real(cfg)
    model.backbone.register_forward_hook(lambda *a: dtypes.update(x.dtype for x in a[2].values()))

    class Loader(list):
        dataset = None

    step = build_step(cfg, model, Loader(loader), optimizer)
    low = histories(run_steps(step, 1))
    assert dtypes == {torch.float32, torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name in ("loss_mask", "loss_rpn_cls", "loss_cls"):
        # The proposals differ a little, so do the losses.
        assert low[name][0][0] == pytest.approx(plain[name][0][0], rel=0.05)
        # A float32 sum: not one of bfloat16's 8 bits.
        mantissa = math.frexp(low[name][0][0])[0] * 2**8
        assert mantissa != int(mantissa), name


def test_a_batch_that_cannot_be_split_is_refused():
    cfg = _config("SOLVER.IMS_PER_BATCH", 6, "SOLVER.ACCUMULATION_STEPS", 4)
    model = toy_model()
    with pytest.raises(UsageError, match=r"IMS_PER_BATCH is 6.*ACCUMULATION_STEPS 4.*multiple of"):
        build_step(cfg, model, None, sgd(model))
    step = TrainStep(model, From(lambda: toy_batches(3)), sgd(model), parts=2)
    with EventStorage(), pytest.raises(UsageError, match="3 samples"):
        step.run_step()
    step = TrainStep(model, From(lambda: toy_batches(3)), sgd(model), positions=[0, 1])
    with EventStorage(), pytest.raises(UsageError, match="3 samples, expected 2"):
        step.run_step()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("SOLVER.ACCUMULATION_STEPS", 0, "at least 1"),
        ("SOLVER.NONFINITE_LIMIT", -1, "at least 0"),
        ("LOG.PERIOD", 0, "at least 1"),
        ("SOLVER.ON_NONFINITE", "ignore", "raise or skip"),
        ("SOLVER.FUSED", "yes", "True, False or None"),
        ("TEST.PRECISION", "int8", "float32, float16, bfloat16"),
    ],
)
def test_values_that_a_key_cannot_have(key, value, words):
    cfg = _config()
    check_step_keys(cfg)
    node = cfg.clone()
    node.defrost()
    section, _, last = key.rpartition(".")
    node[section][last] = value
    with pytest.raises(UsageError, match=rf"{key} is {value!r}.*{words}"):
        check_step_keys(node)

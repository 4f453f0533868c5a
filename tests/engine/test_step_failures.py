"""Steps that must not be taken: what is not finite, and memory that is not there."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from detectron2.utils.events import EventStorage
from step_toys import From, Keeping, histories, run_steps, same_bits, sgd, toy_batches, toy_model
from torch import nn

from mask_rcnn_ext.engine.rng import rng_state
from mask_rcnn_ext.engine.step import TrainStep
from mask_rcnn_ext.engine.step_failures import NonFinite, OutOfMemory
from mask_rcnn_ext.errors import UserError

SIZE = 4


def _step(model, *, bad=(), guarded=False, **keywords):
    loader = From(lambda: toy_batches(SIZE, bad=bad))
    step = TrainStep(model, loader, sgd(model, fused=guarded), **keywords)
    step._guarded = guarded  # what a GPU does; the fused optimizers of a CPU have it too
    step.black_box = Keeping()
    return step


def test_a_loss_that_is_not_finite_raises_before_the_weights_change():
    model, reference = toy_model(), toy_model()
    run_steps(_step(reference), 2)
    step = _step(model, bad=[2], positions=[0, 2, 4, 6])
    storage = EventStorage()
    random = None
    with storage:
        with pytest.raises(NonFinite) as caught:
            for iteration in range(3):
                storage.iter = step.iter = iteration
                random = rng_state()["torch"]
                step.run_step()
        message = str(caught.value)
        assert message.startswith("iteration 2: ")
        assert "loss_one nan" in message
        assert "images 2000, 2001, 2002, 2003" in message
        assert "the/folder" in message
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, FloatingPointError)
    assert same_bits(model, reference)
    # The losses before are there, the bad ones are not.
    assert [i for _, i in histories(storage)["total_loss"]] == [0, 1]
    (failure,) = step.black_box.failures
    assert (failure.kind, failure.iteration, failure.positions) == ("loss", 2, [0, 2, 4, 6])
    assert [sample["image_id"] for sample in failure.batch] == [2000, 2001, 2002, 2003]
    assert math.isnan(failure.losses["loss_two"])
    assert failure.learning_rates == [0.1]
    assert failure.gradient_norms.keys() == dict(model.named_parameters()).keys()
    assert torch.equal(failure.rng["torch"], random)
    assert failure.error is None


def test_without_a_black_box_the_error_is_the_same():
    step = _step(toy_model(), bad=[0])
    step.black_box = None
    with pytest.raises(NonFinite, match=r"^iteration 0: loss_one nan, loss_two nan; images 0, 1"):
        run_steps(step, 1)


def test_a_black_box_that_cannot_write_hides_nothing(caplog):
    step = _step(toy_model(), bad=[0])

    class Full:
        def record(self, failure):
            raise OSError(28, "No space left on device")

    step.black_box = Full()
    with pytest.raises(NonFinite, match="loss_one nan"):
        run_steps(step, 1)
    assert "No space left" in caplog.text


class _BadGradient(nn.Module):
    """A finite loss whose gradient in `weight` is infinite, in `other` not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.other = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        return {"loss": self.weight.sqrt().sum() + self.other.sum()}


def test_a_gradient_that_is_not_finite_raises_too():
    model = _BadGradient()
    step = _step(model)
    with pytest.raises(NonFinite, match=r"the gradients of weight \(losses: loss 1\)"):
        run_steps(step, 1)
    (failure,) = step.black_box.failures
    assert failure.kind == "gradient"
    assert failure.losses == {"loss": 1.0}
    assert failure.gradient_norms["weight"] == math.inf
    assert failure.gradient_norms["other"] == 1.0
    assert float(model.other.detach()) == 1.0


@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_left_out_leaves_no_trace(bad, parts, caplog):
    model, reference = toy_model(norm=True), toy_model(norm=True)

    def without():
        good = toy_batches(SIZE)
        for number, batch in enumerate(good):
            if number != bad:
                yield batch

    step = _step(model, bad=[bad], on_nonfinite="skip", nonfinite_limit=1, parts=parts)
    optimizer = sgd(reference)
    expected = TrainStep(reference, From(without), optimizer, parts=parts)
    with caplog.at_level(logging.WARNING):
        storage = run_steps(step, 5)
    run_steps(expected, 4)
    assert same_bits(model, reference)  # the batch norm's averages too
    for one, other in zip(step.optimizer.state.values(), optimizer.state.values(), strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])
    assert step.skipped == 1
    assert [i for _, i in histories(storage)["loss_one"]] == [i for i in range(5) if i != bad]
    assert storage.latest()["skipped_steps"] == (1.0, bad)
    assert f"Step left out (1 of at most 1): iteration {bad}: loss_one nan" in caplog.text
    assert f"images {1000 * bad}" in caplog.text
    assert not step.black_box.failures


def test_more_steps_left_out_than_allowed_raise():
    step = _step(toy_model(), bad=[0, 1, 2], on_nonfinite="skip", nonfinite_limit=2)
    with pytest.raises(NonFinite, match=r"iteration 2.*2 steps before; SOLVER.NONFINITE_LIMIT"):
        run_steps(step, 4)
    assert step.skipped == 2
    assert [failure.iteration for failure in step.black_box.failures] == [2]


def test_with_a_scaler_a_bad_loss_is_left_out_and_an_overflow_is_not_counted():
    model = toy_model()
    step = _step(model, bad=[1], on_nonfinite="skip", precision=torch.float16)
    before = None
    with EventStorage() as storage:
        for storage.iter in range(3):
            step.iter = storage.iter
            if storage.iter == 1:
                before = [p.detach().clone() for p in model.parameters()]
                step._scaler.load_state_dict(step._scaler.state_dict() | {"scale": 8.0})
            step.run_step()
            if storage.iter == 1:
                assert step.skipped == 1
                pairs = zip(before, model.parameters(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)
        step.flush()
    assert step.skipped == 1
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_gradients_that_always_overflow_do_not_go_on_in_silence():
    step = _step(_BadGradient(), precision=torch.float16, log_period=10)
    with pytest.raises(NonFinite, match=r"loss scale.*bfloat16"):
        run_steps(step, 40)


@pytest.mark.parametrize("bad", [0, 2])
def test_on_a_gpu_the_mark_is_read_in_the_next_step(bad):
    model, reference = toy_model(), toy_model()
    run_steps(_step(reference, guarded=True), bad)
    step = _step(model, bad=[bad], guarded=True)
    storage = EventStorage()
    with storage:
        for iteration in range(bad + 1):
            storage.iter = step.iter = iteration
            step.run_step()
        assert same_bits(model, reference)  # the optimizer saw the mark
        assert not hasattr(step.optimizer, "found_inf")
        step.iter = storage.iter = bad + 1
        with pytest.raises(
            NonFinite, match=rf"^iteration {bad}: loss_one nan.*images {1000 * bad}, "
        ):
            step.run_step()
    assert same_bits(model, reference)
    (failure,) = step.black_box.failures
    assert failure.iteration == bad
    assert failure.batch[0]["image_id"] == 1000 * bad
    assert len(failure.gradient_norms) == 4
    assert all(map(math.isnan, failure.gradient_norms.values()))
    momentum = [state["momentum_buffer"] for state in step.optimizer.state.values()]
    assert all(torch.isfinite(buffer).all() for buffer in momentum)
    assert [i for _, i in histories(storage).get("loss_one", [])] == list(range(bad))


def test_on_a_gpu_the_mark_is_read_before_a_checkpoint():
    step = _step(toy_model(), bad=[1], guarded=True)
    with EventStorage():
        step.run_step()
        step.flush()
        step.run_step()
        with pytest.raises(NonFinite, match="loss_one nan"):
            step.flush()


def test_on_a_gpu_good_steps_are_the_same_steps():
    model, reference = toy_model(), toy_model()
    stored = run_steps(_step(model, guarded=True, log_period=2), 5)
    expected = run_steps(_step(reference), 5)
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert histories(stored).keys() == histories(expected).keys()
    assert [i for _, i in histories(stored)["loss_one"]] == list(range(5))


@pytest.mark.gpu
def test_a_gpu_leaves_the_weights_as_they_are():
    model = toy_model().cuda()
    optimizer = sgd(model, fused=True)

    def batches(bad):
        for batch in toy_batches(SIZE, bad=bad):
            yield [s | {"target": s["target"].cuda()} for s in batch]

    step = TrainStep(model, From(lambda: batches([1])), optimizer)
    assert step._guarded
    before = None
    with EventStorage(), pytest.raises(NonFinite, match="iteration 1: "):
        for step.iter in range(3):
            before = [p.detach().clone() for p in model.parameters()]
            step.run_step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class _Hungry(nn.Module):
    def __init__(self, error=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self._error = error

    def forward(self, batch):
        if self._error is not None:
            raise self._error
        return {"loss": self.weight * torch.empty(1 << 55).sum()}


@pytest.mark.parametrize(
    "error", [None, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\n...")]
)
def test_out_of_memory_names_sizes_and_remedies(error):
    batch = [
        {"image": torch.zeros(3, 30, 40), "instances": [1, 2]},
        {"image": torch.zeros(3, 50, 20), "instances": [1]},
    ]
    model = _Hungry(error)
    step = TrainStep(model, [batch], sgd(model), parts=1)
    step.black_box = Keeping()
    step.iter = 7
    with EventStorage(7), pytest.raises(OutOfMemory) as caught:
        step.run_step()
    message = str(caught.value)
    assert message.startswith("out of memory in iteration 7: ")
    assert "30 x 40, 50 x 20 pixels" in message
    assert "at most to 50 x 40" in message
    assert "2, 1 objects" in message
    for remedy in (
        "SOLVER.ACCUMULATION_STEPS 2",
        "TRAIN_ROIS_PER_IMAGE",
        "INPUT.MAX_SIZE_TRAIN",
        "SOLVER.IMS_PER_BATCH",
    ):
        assert remedy in message
    assert message.endswith("the/folder")
    assert "\n..." not in message
    (failure,) = step.black_box.failures
    assert (failure.kind, failure.iteration, failure.gradient_norms) == ("memory", 7, {})
    assert failure.batch is batch
    assert failure.error is caught.value.__cause__


@pytest.mark.parametrize(
    ("images", "parts", "advice"), [(6, 2, "STEPS 3 "), (4, 1, "STEPS 2 "), (2, 2, None)]
)
def test_parts_that_are_advised_can_be_had(images, parts, advice):
    model = _Hungry(MemoryError())
    batch = [{"image": torch.zeros(3, 8, 8)}] * images
    with pytest.raises(OutOfMemory) as caught:
        run_steps(TrainStep(model, [batch], sgd(model), parts=parts), 1)
    assert "MemoryError" in str(caught.value)
    if advice is None:
        assert "ACCUMULATION_STEPS" not in str(caught.value)
    else:
        assert f"SOLVER.ACCUMULATION_{advice}" in str(caught.value)


def test_other_errors_pass():
    model = _Hungry(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    step = _step(model)
    with pytest.raises(RuntimeError, match="shapes"):
        run_steps(step, 1)
    assert not step.black_box.failures

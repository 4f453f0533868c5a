"""A recorded step, done again, gives the same bits and names what is not finite."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
import yaml
from black_box_step import ITERATION, POSITIONS, SEED, batch_of, config, fail
from detectron2.modeling import build_model
from detectron2.structures import PolygonMasks
from detectron2.utils.events import EventStorage

from mask_rcnn_ext.engine.replay import replay
from mask_rcnn_ext.errors import UsageError, UserError
from mask_rcnn_ext.modeling.sampling import draws


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A step of which nothing is wrong: (its folder, its losses)."""
    folder = tmp_path_factory.mktemp("sound")
    _, box, losses = fail(folder)
    return box, losses


def test_losses_are_the_same_bits(sound):
    folder, losses = sound
    assert len(losses) == 5
    assert all(map(math.isfinite, losses.values()))
    done = replay(folder)
    assert done.losses == losses
    assert done.agreement == "same bits"
    assert done.first == ""
    assert done.error == ""
    assert done.gradient_norms
    assert all(map(math.isfinite, done.gradient_norms.values()))
    # It ran in the step's random state; what a step draws leaves that as it was.
    assert torch.equal(torch.get_rng_state(), torch.load(folder / "rng.pth")["torch"])


def test_polygons_are_replayed_too(tmp_path):
    batch = batch_of(1)
    boxes = batch[0]["instances"].gt_boxes.tensor.double().numpy()
    outlines = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in boxes.tolist()]
    batch[0]["instances"].remove("gt_masks")
    batch[0]["instances"].gt_masks = PolygonMasks(outlines)
    _, folder, losses = fail(tmp_path, batch=batch)
    assert replay(folder).losses == losses


def test_parts_of_a_batch_are_replayed_one_by_one(sound, tmp_path):
    folder, _ = sound
    model = build_model(config()).train()
    model.load_state_dict(torch.load(folder / "weights.pth")["model"])
    expected: dict[str, torch.Tensor] = {}
    for image, position in zip(batch_of(), POSITIONS, strict=True):
        with EventStorage(), draws(SEED, ITERATION, [position]), torch.no_grad():
            for name, loss in model([image]).items():
                expected[name] = expected.get(name, 0.0) + loss / 2
    done = replay(_edited(folder, tmp_path, config={"SOLVER": {"ACCUMULATION_STEPS": 2}}))
    assert done.losses == {name: float(loss) for name, loss in expected.items()}


def test_another_seed_draws_other_samples(sound, tmp_path):
    done = replay(_edited(sound[0], tmp_path, report={"seed": 6}))
    assert done.agreement == "different"


def test_a_broken_weight_is_named_and_the_losses_are_the_same(tmp_path):
    def harm(model):
        model.roi_heads.mask_head.mask_fcn1.weight[0, 0, 0, 0] = math.inf

    _, folder, losses = fail(tmp_path, harm=harm)
    assert not math.isfinite(losses["loss_mask"])
    done = replay(folder)
    assert done.agreement == "same bits"
    assert done.first.startswith("parameter roi_heads.mask_head.mask_fcn1.weight (1 of ")


def test_the_first_layer_with_a_bad_output_is_named(tmp_path):
    def harm(model):
        # Finite weights; their product with the activations is beyond float32.
        model.roi_heads.mask_head.mask_fcn2.weight.fill_(3e38)

    _, folder, losses = fail(tmp_path, harm=harm)
    done = replay(folder)
    assert done.first == "output of roi_heads.mask_head.mask_fcn2.activation (ReLU)"
    assert done.agreement == "same bits"


def test_an_infinite_target_is_found_in_the_input(tmp_path):
    batch = batch_of()
    batch[1]["instances"].gt_boxes.tensor[2, 3] = math.inf
    _, folder, _ = fail(tmp_path, batch=batch)
    done = replay(folder)
    assert done.first == "input batch[1].instances.gt_boxes (1 of 12 values)"


def test_a_box_without_width_shows_in_its_loss(tmp_path):
    batch = batch_of()
    boxes = batch[0]["instances"].gt_boxes.tensor
    boxes[:, 2] = boxes[:, 0]
    _, folder, losses = fail(tmp_path, batch=batch)
    assert losses["loss_rpn_loc"] == math.inf
    done = replay(folder)
    assert done.agreement == "same bits"
    assert done.first == "loss_rpn_loc of proposal_generator (MaskRCNNRPN)"


def test_what_the_step_raised_is_raised_again(tmp_path):
    def harm(model):
        model.proposal_generator.rpn_head.objectness_logits.bias.fill_(math.nan)

    _, folder, losses = fail(tmp_path, harm=harm)
    assert not losses
    done = replay(folder)
    assert done.error.startswith("FloatingPointError: Predicted boxes or scores contain Inf/NaN")
    assert done.agreement == "nothing to compare"
    assert done.first.startswith("parameter proposal_generator.rpn_head.objectness_logits.bias")


def test_anomaly_detection_names_the_operation(tmp_path):
    def harm(model):
        model.roi_heads.mask_head.mask_fcn2.weight.fill_(math.nan)

    _, folder, _ = fail(tmp_path, harm=harm)
    done = replay(folder, anomaly=True)
    assert "returned nan values in its" in done.error
    assert not torch.is_anomaly_enabled()


def test_settings_of_the_process_are_as_before(sound, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        replay(_edited(sound[0], tmp_path, report={"threads": 1, "deterministic": True}))
        assert torch.get_num_threads() == 3
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


def test_weights_in_channels_last_are_so_again(tmp_path):
    _, folder, losses = fail(
        tmp_path, harm=lambda model: model.to(memory_format=torch.channels_last)
    )
    assert json.loads((folder / "report.json").read_text())["channels_last"] is True
    assert replay(folder).losses == losses


@pytest.mark.parametrize("name", ["report.json", "config.yaml", "batch.pth", "weights.pth"])
def test_a_missing_part_is_named(sound, tmp_path, name):
    folder = _edited(sound[0], tmp_path)
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        replay(folder)


def test_a_damaged_report_is_refused(sound, tmp_path):
    folder = _edited(sound[0], tmp_path)
    (folder / "report.json").write_text('{"iteration": 1}')
    with pytest.raises(UserError, match="lacks .*losses"):
        replay(folder)
    (folder / "report.json").write_text("[")
    with pytest.raises(UserError, match="cannot be read"):
        replay(folder)


def test_code_in_a_folder_is_not_executed(sound, tmp_path):
    folder = _edited(sound[0], tmp_path)
    torch.save(_Hostile(tmp_path / "executed"), folder / "batch.pth")
    with pytest.raises(UserError, match="batch.pth was not read"):
        replay(folder)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_model_are_refused(sound, tmp_path):
    folder = _edited(sound[0], tmp_path, config={"MODEL": {"ROI_HEADS": {"NUM_CLASSES": 4}}})
    with pytest.raises(UserError, match="does not fit the model"):
        replay(folder)


def test_a_gpu_that_is_not_there(sound):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="sees no GPU"):
        replay(sound[0], device="cuda")


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _edited(folder, target, *, report=None, config=None):
    """A copy of a box with other values in its report or config."""
    copy = target / "copy"
    shutil.copytree(folder, copy)
    if report:
        path = copy / "report.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | report))
    if config:
        path = copy / "config.yaml"
        path.write_text(yaml.safe_dump(_merged(yaml.safe_load(path.read_text()), config)))
    return copy


def _merged(whole, part):
    return whole | {
        key: _merged(whole[key], value) if isinstance(value, dict) else value
        for key, value in part.items()
    }


def test_the_config_of_the_helper_is_the_one_replayed(sound):
    assert (sound[0] / "config.yaml").read_text() == config().dump()

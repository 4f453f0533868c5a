"""The Predictor: Detectron2's figures, documented shapes, files of every kind, errors to act on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from PIL import Image
from tiny_model import CLASSES, save_tiny_model

from mask_rcnn_ext.engine.predictor import Predictor, read_rgb
from mask_rcnn_ext.errors import DataError, UsageError, UserError

KEYPOINTS = ("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[8]")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def predictor(files):
    return Predictor(*files, score_threshold=0.05, max_detections=20)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_shapes_types_and_ranges(predictor):
    found = predictor(picture(144, 200))
    count = len(found)
    assert count == 20
    assert found.image_size == (144, 200)
    assert found.boxes.shape == (count, 4)
    assert found.boxes.dtype == np.float32
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [200, 144, 200, 144]).all()
    assert found.scores.dtype == np.float32
    assert ((found.scores >= 0.05) & (found.scores <= 1)).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.classes.dtype == np.int64
    assert ((found.classes >= 0) & (found.classes < 9)).all()
    assert len(found.rles) == count
    assert all(rle["size"] == [144, 200] and type(rle["counts"]) is str for rle in found.rles)
    assert found.keypoints is None
    assert found.masks().shape == (count, 144, 200)


@pytest.mark.parametrize("colours", ["BGR", "RGB"])
def test_it_finds_what_detectron2s_predictor_finds(files, colours):
    """At a size that needs no resizing: the same bits, and faster the same to rounding."""
    image = picture(144, 200)
    words = ["INPUT.FORMAT", colours]
    plain = [*words, "MODEL.FOLD_NORMS", "False", "MODEL.CHANNELS_LAST", "False"]
    ours = Predictor(*files, plain, score_threshold=0.05, max_detections=20)
    stock = DefaultPredictor(ours.cfg)(image[:, :, ::-1])["instances"]
    found = ours(image)
    faster = Predictor(*files, words, score_threshold=0.05, max_detections=20)(image)
    assert np.allclose(faster.boxes, found.boxes, atol=1e-3)
    assert np.allclose(faster.scores, found.scores, atol=1e-5)
    assert len(found) == len(stock) > 0
    assert np.array_equal(found.boxes, stock.pred_boxes.tensor.numpy())
    assert np.array_equal(found.scores, stock.scores.numpy())
    assert np.array_equal(found.classes, stock.pred_classes.numpy())
    assert np.array_equal(found.masks(), stock.pred_masks.numpy())


def test_a_resized_image_differs_by_rounding_only(files):
    """Our resize and Pillow's differ by 1 of 255 in some pixels: scores by less than 0.001 here."""
    ours = Predictor(*files, score_threshold=0.05, max_detections=20)
    smooth = np.asarray(Image.fromarray(picture(12, 16)).resize((260, 190)))
    stock = DefaultPredictor(ours.cfg)(smooth[:, :, ::-1])["instances"]
    assert np.allclose(ours(smooth).scores, stock.scores.numpy(), atol=1e-3)


def test_several_images_are_one_batch(predictor):
    images = [picture(144, 160, seed) for seed in range(3)]
    together = predictor(images)
    assert [len(found) for found in together] == [20, 20, 20]
    for image, found in zip(images, together, strict=True):
        assert np.allclose(found.scores, predictor(image).scores, atol=1e-4)
    sizes = [found.image_size for found in predictor([picture(40, 90), picture(300, 50)])]
    assert sizes == [(40, 90), (300, 50)]
    assert predictor([]) == []


def test_files_of_every_kind(predictor, tmp_path):
    gray = picture(30, 40)[:, :, 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert np.array_equal(read_rgb(tmp_path / "gray.png"), np.repeat(gray[:, :, None], 3, axis=2))
    assert np.array_equal(read_rgb(gray), read_rgb(tmp_path / "gray.png"))

    colour = picture(30, 40)
    with_alpha = np.dstack([colour, np.full((30, 40), 128, np.uint8)])
    Image.fromarray(with_alpha, "RGBA").save(tmp_path / "alpha.png")
    assert np.array_equal(read_rgb(str(tmp_path / "alpha.png")), colour)

    turned = Image.fromarray(colour)
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise makes it upright
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert read_rgb(tmp_path / "turned.jpg").shape == (40, 30, 3)
    assert predictor(tmp_path / "turned.jpg").image_size == (40, 30)

    Image.fromarray(picture(1, 1)).save(tmp_path / "pixel.bmp")
    assert predictor(tmp_path / "pixel.bmp").image_size == (1, 1)


def test_what_is_no_image_is_refused(predictor, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    Image.fromarray(picture(60, 60)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name in ("text.jpg", "cut.jpg"):
        with pytest.raises(DataError, match=rf"{name} does not decode"):
            predictor(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.jpg does not exist"):
        predictor(tmp_path / "gone.jpg")
    wrong = (
        picture(4, 4).astype(float),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    )
    for array in wrong:
        with pytest.raises(UsageError, match=r"expected \(H, W, 3\)"):
            predictor(array)


def test_a_model_without_masks(files, tmp_path):
    # Weights of a mask branch that the model does not have are left unused.
    boxes_only = Predictor(*files, ["MODEL.MASK_ON", "False"], score_threshold=0.05)
    found = boxes_only(picture(144, 150))
    assert found.rles is None
    assert len(found) > 0


def test_keypoints(tmp_path):
    config, weights = save_tiny_model(tmp_path, KEYPOINTS)
    predictor = Predictor(config, weights, score_threshold=0.05, max_detections=3)
    found = predictor(picture(144, 150))
    assert found.keypoints.shape == (3, 17, 3)
    x, y = found.keypoints[..., 0], found.keypoints[..., 1]
    assert ((x >= 0) & (x <= 150)).all()
    assert ((y >= 0) & (y <= 144)).all()
    assert len(found.to_coco(1)[0]["keypoints"]) == 51


def test_a_proposal_network_is_refused(tmp_path):
    config, weights = save_tiny_model(tmp_path, ["MODEL.META_ARCHITECTURE", "ProposalNetwork"])
    with pytest.raises(UsageError, match="only proposes regions"):
        Predictor(config, weights)


def test_test_time_augmentation(files):
    overrides = ["TEST.AUG.MIN_SIZES", "(96, 112)", "TEST.AUG.MAX_SIZE", "200"]
    augmented = Predictor(*files, overrides, score_threshold=0.05, max_detections=4, augment=True)
    found = augmented(picture(100, 120))
    assert found.image_size == (100, 120)
    assert 0 < len(found) <= 4
    assert found.masks().shape[1:] == (100, 120)


def test_class_names_come_from_the_checkpoint(files, predictor, scenes, tmp_path):
    assert predictor.class_names == CLASSES
    assert predictor(picture(144, 150)).labels[0] in CLASSES
    mine = Predictor(*files, class_names=list("123456789"))
    assert mine.class_names == list("123456789")
    with pytest.raises(UsageError, match=r"2 class names for a model of 9 classes"):
        Predictor(*files, class_names=["a", "b"])


def test_class_names_without_any_in_the_checkpoint(scenes, tmp_path):
    config, weights = save_tiny_model(tmp_path, class_names=None)
    of_data = Predictor(config, weights)
    assert len(of_data.class_names) == 9
    assert not of_data.class_names[0].startswith("class ")
    nobody = Predictor(config, weights, ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"])
    assert nobody.class_names[:2] == ["class 1", "class 2"]
    assert nobody.category_ids == list(range(1, 10))


def test_wrong_calls(files, tmp_path):
    config, weights = files
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="score threshold"):
            Predictor(config, weights, score_threshold=threshold)
    with pytest.raises(UsageError, match="expected 1 or more"):
        Predictor(config, weights, max_detections=0)
    with pytest.raises(UsageError, match="'gpu' is no device"):
        Predictor(config, weights, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="sees no GPU"):
            Predictor(config, weights, device="cuda")
        assert Predictor(config, weights, ["MODEL.DEVICE", "cuda"]).cfg.MODEL.DEVICE == "cpu"
    with pytest.raises(UsageError, match="needs trained weights"):
        Predictor(config)
    with pytest.raises(UserError, match="does not exist"):
        Predictor(config, tmp_path / "gone.pth")
    with pytest.raises(UsageError, match="LOAD_PROPOSALS"):
        Predictor(config, weights, ["MODEL.LOAD_PROPOSALS", "True"])


def test_a_config_object_is_left_as_it_was(files):
    from mask_rcnn_ext import load_config

    cfg = load_config(files[0])
    before = cfg.dump()
    predictor = Predictor(cfg, files[1], ["TEST.DETECTIONS_PER_IMAGE", "7"], score_threshold=0.3)
    assert cfg.dump() == before
    assert predictor.cfg.TEST.DETECTIONS_PER_IMAGE == 7
    assert predictor.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.3


def test_it_is_a_name_of_the_package():
    import mask_rcnn_ext

    assert mask_rcnn_ext.Predictor is Predictor

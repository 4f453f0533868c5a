"""Data, structures and drawing, where numpy, Pillow or Python dropped what v0.6 used."""

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.usefixtures("ours")


def test_extent_transform_is_bilinear():
    from detectron2.data.transforms import ExtentTransform

    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    transform = ExtentTransform((0, 0, 4, 4), (4, 4))
    assert transform.interp == Image.BILINEAR
    np.testing.assert_array_equal(transform.apply_image(image), image)


def test_a_rejected_sample_is_replaced():
    from detectron2.data import DatasetFromList, MapDataset

    dataset = MapDataset(DatasetFromList([1, 2]), lambda x: None if x == 1 else x)
    assert dataset[0] == 2


def test_resize_scale_makes_plain_integers():
    from detectron2.data.transforms import ResizeScale

    transform = ResizeScale(1.0, 1.0, 20, 30).get_transform(np.zeros((10, 10, 3), np.uint8))
    assert type(transform.new_h) is type(transform.new_w) is int
    assert transform.apply_image(np.zeros((10, 10, 3), np.uint8)).shape == (20, 20, 3)


def test_class_histogram(caplog):
    from detectron2.data.build import print_instances_class_histogram

    with caplog.at_level("INFO"):
        print_instances_class_histogram([{"annotations": [{"category_id": 1}]}], ["cat", "dog"])
    assert "dog" in caplog.text


def test_voc_files(tmp_path):
    from detectron2.data.datasets.pascal_voc import load_voc_instances

    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("000001\n000002\n")
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    for name in ("000001", "000002"):
        (tmp_path / f"Annotations/{name}.xml").write_text(
            "<annotation><size><height>9</height><width>8</width></size>"
            f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        )
    loaded = load_voc_instances(str(tmp_path), "val", ["cat"])
    assert [record["image_id"] for record in loaded] == ["000001", "000002"]
    assert loaded[0]["annotations"][0]["bbox"] == [0, 1, 3, 4]


def test_masks_are_boolean():
    from detectron2.structures import BitMasks, PolygonMasks

    square = np.array([1.0, 1, 5, 1, 5, 5, 1, 5])
    masks = BitMasks.from_polygon_masks([[square], []], 8, 8)
    assert masks.tensor.dtype == torch.bool
    assert masks.tensor.sum(dim=(1, 2)).tolist() == [16, 0]
    assert PolygonMasks([[square], []]).nonempty().tolist() == [True, False]


def _metadata():
    from detectron2.data import Metadata

    meta = Metadata()
    meta.set(thing_classes=["cat"], stuff_classes=["sky", "sea"], thing_colors=[(255, 0, 0)])
    return meta


def test_colours_stay_within_matplotlibs_range():
    from detectron2.utils.visualizer import Visualizer

    visualizer = Visualizer(np.zeros((8, 8, 3), np.uint8), _metadata())
    rng = np.random.default_rng(0)
    for color in [(1.0, 1.0, 1.0), (0.99, 1.0, 0.98), *map(tuple, rng.random((200, 3)))]:
        for factor in (-1.0, 0.7, 1.0):
            changed = np.array(visualizer._change_color_brightness(color, factor))
            assert changed.min() >= 0
            assert changed.max() <= 1


def test_drawing():
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.video_visualizer import VideoVisualizer
    from detectron2.utils.visualizer import ColorMode, Visualizer

    image = np.full((40, 60, 3), 200, np.uint8)
    masks = torch.zeros(1, 40, 60, dtype=torch.bool)
    masks[:, 10:30, 10:40] = True
    found = Instances((40, 60), scores=torch.tensor([0.9]), pred_classes=torch.tensor([0]))
    found.pred_boxes = Boxes(torch.tensor([[10.0, 10, 40, 30]]))
    found.pred_masks = masks
    panoptic = masks[0].int()
    info = [{"id": 1, "category_id": 0, "isthing": True, "score": 0.9, "area": 600}]
    visualizer = Visualizer(image, _metadata(), instance_mode=ColorMode.IMAGE_BW)
    drawn = [
        visualizer.draw_instance_predictions(found),
        Visualizer(image, _metadata()).draw_panoptic_seg(panoptic, info),
        Visualizer(image, _metadata()).draw_sem_seg(panoptic),
        VideoVisualizer(_metadata()).draw_instance_predictions(image, found),
    ]
    for picture in drawn:
        assert not np.array_equal(picture.get_image(), image)

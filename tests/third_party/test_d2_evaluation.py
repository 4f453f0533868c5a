"""Evaluators: without `_C`, and with the numpy names that are gone."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.usefixtures("ours")


@pytest.fixture
def metadata():
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = "test_d2_evaluation"
    yield MetadataCatalog.get(name)
    MetadataCatalog.pop(name)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)


def test_coco_evaluation_falls_back_to_pycocotools(tmp_path, metadata):
    from detectron2.evaluation import COCOEvaluator, coco_evaluation
    from detectron2.structures import Boxes, Instances
    from pycocotools.cocoeval import COCOeval

    assert coco_evaluation.COCOeval_opt is COCOeval
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400}
    path = tmp_path / "gt.json"
    path.write_text(
        json.dumps(
            {
                "info": {},
                "images": [{"id": 1, "file_name": "1.jpg", "height": 40, "width": 40}],
                "annotations": [{**box, "iscrowd": 0, "segmentation": square}],
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )
    metadata.set(json_file=str(path), thing_dataset_id_to_contiguous_id={1: 0})
    metadata.set(thing_classes=["cat"])
    found = Instances((40, 40), scores=torch.tensor([0.9]), pred_classes=torch.tensor([0]))
    found.pred_boxes = Boxes(torch.tensor([[10.0, 10, 30, 30]]))
    found.pred_masks = torch.zeros(1, 40, 40, dtype=torch.bool)
    found.pred_masks[:, 10:30, 10:30] = True
    evaluator = COCOEvaluator(metadata.name, ("bbox", "segm"), False, str(tmp_path))
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)


def test_fast_eval_says_that_it_needs_the_compiled_module():
    with pytest.raises(ImportError, match="_C"):
        import detectron2.evaluation.fast_eval_api  # noqa: F401


def test_sem_seg_evaluation(tmp_path, metadata):
    from detectron2.data import DatasetCatalog
    from detectron2.evaluation import SemSegEvaluator

    truth = np.array([[0, 0], [1, 255]], dtype=np.uint8)
    Image.fromarray(truth).save(tmp_path / "gt.png")
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "gt.png")}
    DatasetCatalog.register(metadata.name, lambda: [record])
    metadata.set(stuff_classes=["sky", "sea"], ignore_label=255)
    evaluator = SemSegEvaluator(metadata.name, distributed=False)
    evaluator.reset()
    scores = torch.nn.functional.one_hot(torch.tensor([[0, 1], [1, 1]])).permute(2, 0, 1)
    evaluator.process([record], [{"sem_seg": scores}])
    results = evaluator.evaluate()["sem_seg"]
    assert results["mIoU"] == pytest.approx(50)  # 1 of 2 in each class
    assert results["pACC"] == pytest.approx(200 / 3)


def test_voc_evaluation(tmp_path):
    from detectron2.evaluation.pascal_voc_evaluation import voc_eval

    (tmp_path / "val.txt").write_text("a\n")
    (tmp_path / "a.xml").write_text(
        "<annotation><object><name>cat</name><pose>x</pose><truncated>0</truncated>"
        "<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "cat.txt").write_text("a 0.9 1 1 9 9\n")
    names = [str(tmp_path / name) for name in ("{}.txt", "{}.xml", "val.txt")]
    _, _, ap = voc_eval(*names, "cat", 0.5, False)
    assert ap == pytest.approx(1)

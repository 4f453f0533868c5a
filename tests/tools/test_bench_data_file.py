"""`bench data`: a file like COCO's, loaded by both in processes of their own."""

import json

import pytest

from mask_rcnn_ext.data.coco_table import POLYGONS, RLE_LIST, read_coco_table
from mask_rcnn_ext.tools.bench.data_file import write_annotation_file
from mask_rcnn_ext.tools.cli import main


def test_the_generated_file_is_a_sound_one(tmp_path):
    path = tmp_path / "a.json"
    write_annotation_file(path, 30, 250)
    table = read_coco_table(path)
    assert (table.num_images, table.num_annotations) == (30, 250)
    assert (table.image_of >= 0).all()
    assert (table.category_of >= 0).all()
    assert set(table.segmentation_kind.tolist()) == {POLYGONS, RLE_LIST}
    assert table.crowd.sum() == 3
    runs = table.segmentation(0)
    assert sum(runs["counts"]) == 480 * 640
    x, y, w, h = table.boxes[1]
    points = table.segmentation(1)[0]
    assert [min(points[::2]), min(points[1::2])] == [x, y]
    assert max(points[::2]) == pytest.approx(x + w)
    write_annotation_file(tmp_path / "b.json", 30, 250)
    assert (tmp_path / "b.json").read_bytes() == path.read_bytes()


def test_the_command(tmp_path, capsys, scenes):
    target = tmp_path / "a.json"
    words = ["bench", "data", "--images", "2", "--repeats", "1", "--file-images", "20"]
    words += ["--file-instances", "80", "--file-repeats", "1", "--workers", "1"]
    assert main([*words, "--dataset", "scenes_train", "--json", str(target)]) == 0
    text = capsys.readouterr().out
    assert "20 images, 80 instances" in text
    assert "stock / ours" in text
    measured = json.loads(target.read_text())
    assert set(measured) == {"samples", "file"}
    for side in (measured["file"]["ours"], measured["file"]["stock"]):
        assert side["first_batch_seconds"][0] >= side["load_seconds"][0] > 0
        assert side["peak_bytes"][0] >= side["steady_bytes"][0]

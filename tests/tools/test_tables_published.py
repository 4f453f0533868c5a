"""Where published weights are said to be fetched to is where Detectron2 looks for them."""

from __future__ import annotations

from pathlib import Path

import iopath.common.file_io
import pytest
from detectron2.utils.file_io import PathManager

from mask_rcnn_ext.paper import load_paper
from mask_rcnn_ext.tools.tables.listing_text import weights_line
from mask_rcnn_ext.tools.tables.published import is_fetched, published

ADDRESSES = [one.address for one in load_paper().weights.values() if one.is_published]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("address", [*ADDRESSES, "https://example.org/some/model_final.pth"])
def test_it_is_where_detectron2_fetches_it(address, cache, monkeypatch):
    asked = []

    def download(url, folder, *, filename, **more):
        asked.append(url)
        path = Path(folder, filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights")
        return str(path)

    monkeypatch.setattr(iopath.common.file_io, "download", download)
    for handler in PathManager._path_handlers.values():  # what it fetched in other tests
        if hasattr(handler, "cache_map"):
            monkeypatch.setattr(handler, "cache_map", {})
    assert not is_fetched(address)
    assert not cache.exists(), "asking makes no folder"
    fetched = PathManager.get_local_path(address)
    one = published(address)
    assert (one.path, [one.url]) == (Path(fetched), asked)
    assert is_fetched(address)


def test_one_that_was_put_there_is_taken(cache):
    address = ADDRESSES[0]
    path = published(address).path
    path.parent.mkdir(parents=True)
    path.write_text("brought by hand")
    assert Path(PathManager.get_local_path(address)) == path


def test_the_line_says_where_to_put_it_until_it_is_there(cache):
    paper = load_paper()
    one = published(paper.weights["R-50"].address)
    line = " ".join(weights_line(paper, "R-50", lacks=False).split())
    assert line.endswith(f"fetched when needed; without a network, put {one.url} at {one.path}")
    one.path.parent.mkdir(parents=True)
    one.path.touch()
    assert weights_line(paper, "R-50", lacks=False).endswith("R-50.pkl) found")

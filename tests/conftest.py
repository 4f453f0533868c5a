"""Shared by all tests: no test's random numbers or registrations leak into the next one."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples in every run, so that a change is what turns a test red. To look further:
# HYPOTHESIS_PROFILE=search python -m pytest ...
settings.register_profile("same", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    """Each test starts from the same random state and leaves the one it found."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(pytorch)


@pytest.fixture(autouse=True)
def _what_data_said_is_forgotten() -> Iterator[None]:
    """Classes and keypoints that a registered set has read from files of the test before.

    A set of the first images of another (DATASETS.MAX_IMAGES) lies in a run's folder: it goes.
    """
    yield
    if "mask_rcnn_ext.data.registration.catalog" in sys.modules:
        from detectron2.data import DatasetCatalog, MetadataCatalog

        from mask_rcnn_ext.data.registration.catalog import _LOCATION, entry_of

        for name in [*DatasetCatalog]:
            if re.search(r"_first\d+$", name):
                DatasetCatalog.remove(name)
                MetadataCatalog.pop(name, None)
        for entry in filter(None, map(entry_of, DatasetCatalog)):
            entry._forget()
            for key in _LOCATION:  # found again below the next test's DETECTRON2_DATASETS
                MetadataCatalog.get(entry.spec.name).__dict__.pop(key, None)


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets that are imported go into a folder of the test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASK_RCNN_EXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def repo_root() -> Path:
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def scenes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datasets root with a handful of small scenes; point DETECTRON2_DATASETS to it."""
    from mask_rcnn_ext.data.scenes import generate_splits

    root = tmp_path_factory.mktemp("datasets")
    generate_splits(root / "scenes", {"train": 12, "val": 4}, 64, 3, workers=1, progress=False)
    return root


@pytest.fixture
def scenes(scenes_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`scenes_root`, with the environment variable set."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(scenes_root))
    return scenes_root


@pytest.fixture
def coco_images() -> Path:
    """The folder of real COCO images, where there is one."""
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    if not (root / "coco" / "annotations" / "instances_train2017.json").is_file():
        pytest.skip("needs real COCO images: set DETECTRON2_DATASETS to a folder with coco/ in it")
    return root.resolve()

"""Tests of the Detectron2 that third_party/detectron2 builds, and of how it builds it."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2] / "third_party" / "detectron2"
sys.path.insert(0, str(PROJECT))  # for d2build


def _is_ours():
    found = importlib.util.find_spec("detectron2")  # imports nothing
    if found is None or not found.origin:
        return False
    return (Path(found.origin).parent / "_mask_rcnn_ext_build.py").is_file()


@pytest.fixture(scope="session")
def project():
    return PROJECT


@pytest.fixture(scope="session")
def ours():
    """For tests of what an edit changed: other Detectron2 builds are used as they are."""
    if not _is_ours():
        pytest.skip("the installed detectron2 is not the one third_party/detectron2 builds")


@pytest.fixture
def strict_python():
    """A Python where a warning is an error, those hidden by default (DeprecationWarning) too."""
    # torch 2.6 leaves a temporary folder to be removed at exit, which is a ResourceWarning
    return [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning"]


@pytest.fixture
def clean_env():
    """Environment for a Python of its own, where this checkout is not on the path."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS")}

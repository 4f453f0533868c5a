"""Importing: silent, without what is gone from torch, setuptools and Pillow, without `_C`."""

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("ours")


def test_importing_prints_nothing(tmp_path, strict_python, clean_env):
    modules = (
        "detectron2, detectron2.model_zoo, detectron2.engine, detectron2.evaluation, "
        "detectron2.export, detectron2.utils.analysis, detectron2.projects.point_rend, "
        "detectron2.projects.deeplab"
    )
    result = subprocess.run(
        [*strict_python, "-c", f"import {modules}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_env,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_importlib_is_imported_as_it_is_used():
    """importlib.util and its like are there only if somebody imported them by that name."""
    used = 0
    for path in Path(importlib.util.find_spec("detectron2").origin).parent.rglob("*.py"):
        text = path.read_text()
        for name in set(re.findall(r"\bimportlib\.(abc|machinery|util)\.", text)):
            assert f"import importlib.{name}\n" in text, path
            used += 1
    assert used > 3


def test_version_and_licence():
    import detectron2

    assert detectron2.__version__ == importlib.metadata.version("detectron2") == "0.6"
    files = importlib.metadata.files("detectron2")
    licence = next(path for path in files if path.name == "LICENSE")
    assert "Apache License" in licence.read_text()


def test_no_c_extension():
    from detectron2.utils.collect_env import collect_env_info

    assert importlib.util.find_spec("detectron2._C") is None
    with pytest.raises(ImportError):
        from detectron2 import _C  # noqa: F401
    assert "detectron2._C" in collect_env_info()  # default_setup() prints this


def test_export_without_caffe2():
    from detectron2 import export
    from detectron2.utils import analysis

    assert export.TracingAdapter is analysis.TracingAdapter
    assert not hasattr(export, "Caffe2Tracer")


def test_panoptic_deeplab_needs_only_its_own_api(monkeypatch):
    """panopticapi is not on the package index; upstream too fails without it."""
    if importlib.util.find_spec("panopticapi") is None:
        from types import ModuleType

        utils = ModuleType("panopticapi.utils")
        utils.rgb2id = None
        monkeypatch.setitem(sys.modules, "panopticapi", ModuleType("panopticapi"))
        monkeypatch.setitem(sys.modules, "panopticapi.utils", utils)
    importlib.import_module("detectron2.projects.panoptic_deeplab")


def _zoo_configs(suffix):
    found = importlib.util.find_spec("detectron2")
    root = Path(found.origin).parent / "model_zoo" / "configs" if found else Path()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*.{suffix}"))


def test_every_zoo_yaml_loads():
    from detectron2 import model_zoo
    from detectron2.config import get_cfg

    names = _zoo_configs("yaml")
    assert len(names) == 92
    for name in names:
        get_cfg().merge_from_file(model_zoo.get_config_file(name))
    with pytest.raises(RuntimeError, match="not available in Model Zoo"):
        model_zoo.get_config_file("absent.yaml")


def test_zoo_lazy_configs_load():
    from detectron2 import model_zoo

    config = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    assert config.model.roi_heads.num_classes == 80
    assert "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py" in _zoo_configs("py")

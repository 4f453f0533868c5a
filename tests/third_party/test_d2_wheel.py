"""The whole way: pip builds the wheel from the sdist, and it is what it should be."""

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest
from d2build import sdist
from d2build.edits import EDITS
from d2build.errors import BuildError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(project):
    """The sdist: of $DETECTRON2_SDIST, or through pip, from its cache or the network."""
    try:
        return sdist.find(project)
    except BuildError as error:
        pytest.skip(f"no sdist: {error}")


@pytest.fixture(scope="module")
def built(project, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    path = folder / "sdist.tar.gz"
    path.write_bytes(source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", str(project), "-w", str(folder)],
        env={**os.environ, sdist.ENV: str(path)},
        check=True,
    )
    return folder / "detectron2-0.6-py3-none-any.whl"


def test_content(built, source):
    upstream = sdist.read(source)
    edited = {f"detectron2/{hunk.file}" for edit in EDITS for hunk in edit.hunks}
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        for name, data in upstream.items():
            if name.startswith("detectron2/"):
                assert (archive.read(name) == data) == (name not in edited), name
    assert edited <= names
    assert sum(name.endswith(".yaml") for name in names) == 92
    assert "detectron2/projects/point_rend/__init__.py" in names
    assert not any(name.split("/")[0] in ("tools", "projects") for name in names)


def test_the_python_compiles_without_a_warning(built, tmp_path):
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-W", "error", "-m", "compileall", "-q", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_installed_one_is_this_one(built, ours):
    """A wheel installed before an edit was made would make the other tests say little."""
    import importlib.util
    from pathlib import Path

    folder = Path(importlib.util.find_spec("detectron2").origin).parent.parent
    with zipfile.ZipFile(built) as archive:
        for name in archive.namelist():
            if name.startswith("detectron2/"):
                digest = hashlib.sha256((folder / name).read_bytes()).digest()
                assert digest == hashlib.sha256(archive.read(name)).digest(), name

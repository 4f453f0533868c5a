"""The build itself: edits, hash, refusal, wheel. Nothing here needs a network or detectron2."""

import base64
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest
from d2build import assemble, installed, sdist, wheel
from d2build.editing import Edit, Hunk, apply
from d2build.edits import EDITS
from d2build.errors import BuildError


def _apply(text, *args, **kwargs):
    texts = {"a.py": text}
    changed = apply([Edit("mend", "why", "until", (Hunk("a.py", *args, **kwargs),))], texts)
    assert changed == {"a.py"}
    return texts["a.py"]


def test_edit_replaces():
    assert _apply("x = 1\n", "1", "2") == "x = 2\n"
    assert _apply("1, 1", "1", "2", 2) == "2, 2"
    assert _apply("a [b c] d", "[b", "", upto="] d") == "a ] d"


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [("nothing", 1, 0), ("old old", 1, 2), ("old", 2, 1)],
)
def test_edit_stops_unless_found_as_often_as_expected(text, count, found):
    with pytest.raises(BuildError, match=rf"edit mend.* a\.py {found} times, expected {count}"):
        _apply(text, "old", "new", count)


def test_edit_stops_where_a_piece_has_no_end():
    with pytest.raises(BuildError, match="0 times, expected 1"):
        _apply("start middle", "start", "", upto="end")
    with pytest.raises(BuildError, match="comes before its start"):
        _apply("end start", "start", "", upto="end")


def test_edit_stops_without_its_file():
    with pytest.raises(BuildError, match=r"edit mend: there is no file b\.py"):
        apply([Edit("mend", "", "", (Hunk("b.py", "old", "new"),))], {"a.py": "old"})


def test_a_source_that_differs_stops_the_build(project):
    source = {"detectron2/data/transforms/transform.py": b"interp=Image.BILINEAR"}
    with pytest.raises(BuildError, match="edit pillow-linear"):
        assemble.package_files(source, project)


def test_readme_lists_each_edit(project):
    rows = re.findall(r"^\| `.*$", (project / "README.md").read_text(), re.MULTILINE)
    assert rows == [f"| `{edit.name}` | {edit.why} | {edit.until} |" for edit in EDITS]


def test_changed_files_say_so_and_others_stay(project):
    source = {
        "detectron2/a.py": b"old",
        "detectron2/b.py": b"old",
        "projects/DeepLab/deeplab/c.py": b"",
        "setup.py": b"",
    }
    edit = Edit("mend", "why", "until", (Hunk("a.py", "old", "new"),))
    files = assemble.package_files(source, project, [edit])
    assert files["detectron2/a.py"].startswith(b"# Changed from Detectron2 v0.6 by")
    assert files["detectron2/a.py"].endswith(b"\nnew")
    assert files["detectron2/b.py"] == b"old"
    assert "detectron2/projects/deeplab/c.py" in files
    assert not any("setup.py" in name for name in files)
    assert "detectron2/checkpoint/_safe_load.py" in files
    marker = {}
    exec(files[f"detectron2/{installed.MARKER}"], marker)
    assert marker["EDITS"] == {"mend": "why"}
    assert marker["FILES"] == {"mend": ["a.py"]}


def test_a_given_sdist_is_checked(project, tmp_path, monkeypatch):
    path = tmp_path / "pb1-detectron2-0.6.tar.gz"
    path.write_bytes(b"something else")
    monkeypatch.setenv(sdist.ENV, str(path))
    with pytest.raises(BuildError, match=f"{path.name} has sha256 .* expected 5d2e9e51e"):
        sdist.find(project)
    path.unlink()
    with pytest.raises(BuildError, match="cannot be read"):
        sdist.find(project)


@pytest.mark.skipif(
    not any(importlib.metadata.distributions(name="pip")),  # importing pip would change distutils
    reason="this environment has no pip",
)
def test_a_failed_download_says_what_to_do(project, tmp_path, monkeypatch):
    monkeypatch.delenv(sdist.ENV, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(BuildError) as error:
        sdist.find(project)
    for part in ("pb1-detectron2==0.6", "No matching distribution", "pip download", sdist.ENV):
        assert part in str(error.value)


def test_the_inner_pip_has_the_stub_and_no_backend_of_the_outer(project, monkeypatch):
    seen = {}

    def run(command, env, **kwargs):
        seen.update(env)
        return subprocess.CompletedProcess(command, 1, "")

    monkeypatch.setattr(sdist.subprocess, "run", run)
    monkeypatch.delenv(sdist.ENV, raising=False)
    for name in ("_PYPROJECT_HOOKS_BACKEND_PATH", "PEP517_BACKEND_PATH", "BUILD_NIGHTLY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", "mine")
    with pytest.raises(BuildError):
        sdist.find(project)
    assert seen["PYTHONPATH"].split(os.pathsep) == [str(project / "torch_stub"), "mine"]
    assert not any(name.startswith(("_PYPROJECT", "PEP517", "BUILD_N")) for name in seen)


def test_a_foreign_detectron2_is_refused(tmp_path):
    installed.refuse_foreign([tmp_path, tmp_path / "absent"])
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").touch()
    with pytest.raises(BuildError, match="did not make"):
        installed.refuse_foreign([tmp_path])
    (package / installed.MARKER).touch()
    installed.refuse_foreign([tmp_path])


@pytest.mark.parametrize("name", ["detectron2.egg-link", "detectron2-0.6.dist-info/METADATA"])
def test_a_foreign_editable_detectron2_is_refused(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n")
    with pytest.raises(BuildError, match="did not make"):
        installed.refuse_foreign([tmp_path])


def test_the_environment_is_seen_from_build_isolation(tmp_path):
    """pip's isolation puts another folder first and drops site-packages from sys.path."""
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; "
        f"sys.path.insert(0, {str(installed.__file__.rsplit('/', 2)[0])!r}); "
        "from d2build import installed; print(*installed.environment_folders(), sep='\\n')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert any(path in result.stdout.split("\n") for path in sys.path if "site-packages" in path)


def test_wheel(project, tmp_path):
    files = {"detectron2/b.py": b"b", "detectron2/a.py": b"a"}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        name = wheel.write(tmp_path / folder, project, files, b"the licence")
    assert name == "detectron2-0.6-py3-none-any.whl"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / name) as archive:
        assert archive.testzip() is None
        record = archive.read("detectron2-0.6.dist-info/RECORD").decode().splitlines()
        assert len(record) == len(archive.namelist())
        for line in record[:-1]:
            path, digest, size = line.split(",")
            data = archive.read(path)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={expected}", len(data))
        metadata = Parser().parsestr(archive.read("detectron2-0.6.dist-info/METADATA").decode())
        assert archive.read("detectron2-0.6.dist-info/licenses/LICENSE") == b"the licence"
    assert metadata["License-Expression"] == "Apache-2.0"
    required = " ".join(metadata.get_all("Requires-Dist"))
    for name in ("torch", "future", "pydot", "<0.1.10", "black=="):  # "torch" must stay as it is
        assert not re.search(rf"(^| ){re.escape(name)}( |$)", required), name

"""`mask-rcnn-ext doctor` says what is wrong with an environment, and what mends it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mask_rcnn_ext.tools import doctor
from mask_rcnn_ext.tools.doctor import data, detectron2, gpu, libraries, machine
from mask_rcnn_ext.tools.doctor.findings import NOTE, OK, PROBLEM, WARNING, Finding
from mask_rcnn_ext.tools.doctor.probe import Probe, failed, probe

SOUND_TORCH = {"torch": "2.14.0+cpu", "torchvision": "0.29.0+cpu", "ops": "ran", "gpus": []}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a package of this text first on the path of probes; gives its folder."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(name: str, text: str = "", **modules: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(text)
        for module, content in modules.items():
            (folder / f"{module}.py").write_text(content)
        return folder

    return write


def test_a_probe_outlives_what_it_tries():
    done = probe(
        "say('one', [1]); attempt('two', lambda: 1 / 0)\nimport os, signal\n"
        "os.kill(os.getpid(), signal.SIGABRT)"
    )
    assert done.said == {"one": [1], "two": "error: ZeroDivisionError: division by zero"}
    assert done.error == "it crashed (SIGABRT)"
    assert failed(done.said["two"]) == "ZeroDivisionError: division by zero"
    assert failed([1]) == ""
    assert probe("raise KeyError('x')").error == "KeyError: 'x'"


def test_a_file_in_the_working_folder_is_not_taken_for_a_library(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise ImportError('wrong one')")
    monkeypatch.chdir(tmp_path)
    assert probe("say('ran', 1)") == Probe({"ran": 1}, "")


def test_an_old_python(monkeypatch):
    assert libraries.check_python().level == OK
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    old = libraries.check_python()
    assert (old.level, old.text) == (PROBLEM, "3.10.2 is older than 3.11")


def test_a_torch_that_cannot_be_imported(fake):
    fake("torch", "raise ImportError('libcudart.so.12: cannot open shared object file')")
    (found,) = libraries.check_torch(probe(libraries.TORCH_SCRIPT))
    assert found.level == PROBLEM
    assert "cannot be imported" in found.text
    assert "libcudart.so.12" in found.text
    assert "pip install --force-reinstall torch torchvision" in found.mend


def test_no_torch_at_all(monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    (found,) = libraries.check_torch(Probe({}, "ModuleNotFoundError: No module named 'torch'"))
    assert "is not installed" in found.text
    assert found.mend.endswith("-m pip install torch torchvision")


@pytest.mark.parametrize(
    ("said", "needed", "level", "text", "mend"),
    [
        ({}, "2.14.0", OK, "nms and roi_align run", ""),
        ({"torch": "2.13.1"}, "2.14.0", PROBLEM, "built for torch 2.14.0", "torchvision==0.28.*"),
        ({"ops": "error: RuntimeError: operator torchvision::nms does not exist"}, "", PROBLEM,
         "operator torchvision::nms does not exist", "torch==2.14.0 'torchvision==0.29.*'"),
    ],
)  # fmt: skip
def test_the_pair_of_torch_and_torchvision(monkeypatch, said, needed, level, text, mend):
    monkeypatch.setattr(libraries, "_torch_that_torchvision_needs", lambda: needed)
    (found,) = libraries.check_torch(Probe(SOUND_TORCH | said, ""))
    assert found.level == level
    assert text in found.text
    assert mend in found.mend


def test_a_torchvision_that_crashes_on_import(monkeypatch):
    monkeypatch.setattr(libraries, "_torch_that_torchvision_needs", lambda: "")
    found = libraries.check_torch(Probe({"torch": "2.14.0"}, "it crashed (SIGSEGV)"))
    assert [(one.level, one.subject) for one in found] == [(PROBLEM, "torchvision")]
    assert "SIGSEGV" in found[0].text


def test_what_torchvision_needs_is_read_from_its_metadata(monkeypatch):
    monkeypatch.setattr(libraries.metadata, "requires", lambda name: ["numpy", "torch==2.9.1"])
    assert libraries._torch_that_torchvision_needs() == "2.9.1"


def _distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    (info / "METADATA").write_text("\n".join(lines + [f"Requires-Dist: {r}" for r in requires]))


def test_requirements_that_are_not_met(tmp_path, monkeypatch):
    _distribution(tmp_path, "mask_rcnn_ext", "9", "one>=2", "two>=1", "three; extra == 'x'")
    _distribution(tmp_path, "detectron2", "9", "four<0.1.10", "five", "one>=3")
    _distribution(tmp_path, "one", "1.5")
    _distribution(tmp_path, "two", "1.0")
    _distribution(tmp_path, "four", "0.1.10")
    monkeypatch.syspath_prepend(tmp_path)
    found = {one.subject: one for one in libraries.check_requirements()}
    assert set(found) == {"one", "four", "five"}
    assert found["one"].level == PROBLEM
    assert found["one"].text == "1.5, mask_rcnn_ext needs one>=2"
    assert found["one"].mend.endswith("pip install 'one>=2'")
    assert found["four"].level == NOTE  # an old pin
    assert found["five"].level == PROBLEM


def test_a_headless_opencv_counts(monkeypatch):
    versions = {"opencv-python-headless": "4.10"}
    monkeypatch.setattr(libraries, "_version_of", versions.get)
    monkeypatch.setattr(libraries.metadata, "requires", lambda name: ["opencv-python>=4.8"])
    assert libraries._unmet("mask_rcnn_ext") == []
    assert libraries.check_opencv() == []
    versions["opencv-python"] = "4.11"
    (clash,) = libraries.check_opencv()
    assert clash.level == WARNING
    assert "uninstall -y opencv-python opencv-python-headless" in clash.mend


def test_libraries_that_do_not_load(fake, monkeypatch):
    fake("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')")
    fake("hotcoco", "raise RuntimeError('built for another Python')")
    monkeypatch.setattr(
        libraries, "_MODULES", {"json": "json", "cv2": "opencv-python", "hotcoco": "hotcoco"}
    )
    found = {one.subject: one for one in libraries.check_modules()}
    assert set(found) == {"cv2", "hotcoco"}
    assert found["cv2"].mend.startswith("apt-get install -y libgl1")
    assert "built for another Python" in found["hotcoco"].text


def test_a_library_that_crashes_is_the_one_named(fake, monkeypatch):
    fake("msgspec", "import os; os.abort()")
    monkeypatch.setattr(libraries, "_MODULES", {"json": "", "msgspec": "msgspec", "yaml": ""})
    (found,) = libraries.check_modules()
    assert found.subject == "msgspec"
    assert "SIGABRT" in found.text


MODULES = dict.fromkeys(
    ("structures", "layers", "data", "modeling", "engine", "evaluation", "model_zoo"), ""
)


def _judged(folder: Path) -> list[Finding]:
    return detectron2._judge(folder, probe(detectron2._SCRIPT), "mend it")


def test_detectron2_without_its_compiled_part(fake):
    found = _judged(fake("detectron2", **MODULES))
    assert [(one.level, one.subject) for one in found] == [
        (OK, "Detectron2"),
        (NOTE, "Detectron2's _C"),
    ]
    assert found[0].text.startswith("v0.6 in ")
    assert "Mask R-CNN does not" in found[1].text


def test_which_detectron2_it_is(fake):
    folder = fake("detectron2", **MODULES)
    (folder / "tracking").mkdir()
    assert _judged(folder)[0].text.startswith("main in ")
    (folder / "_mask_rcnn_ext_build.py").touch()
    assert _judged(folder)[0].text.startswith("this project's build of v0.6 in ")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("from PIL import Image; Image.LINEAR", "Pillow 10 dropped Image.LINEAR"),
        ("import numpy; numpy.bool8; numpy.float", "numpy"),
        ("import pkg_resources_", "No module named 'pkg_resources_'"),
    ],
)
def test_an_unedited_detectron2_on_new_libraries(fake, line, why):
    (found,) = _judged(fake("detectron2", **MODULES | {"data": line}))
    assert (found.level, found.mend) == (PROBLEM, "mend it")
    assert "detectron2.data fails" in found.text
    assert why in found.text


def test_a_compiled_part_for_another_torch(fake):
    bad = "raise ImportError('_C.so: undefined symbol: _ZN3c10')"
    found = _judged(fake("detectron2", **MODULES, _C=bad))
    assert found[1].level == PROBLEM
    assert "compiled for another torch" in found[1].text


def test_no_detectron2(monkeypatch):
    monkeypatch.setattr(detectron2, "package_folder", lambda name: None)
    (found,) = detectron2.check_detectron2()
    assert (found.level, found.text) == (PROBLEM, "is not installed")
    assert "third_party/detectron2" in found.mend
    assert "uninstall" not in found.mend
    assert "uninstall -y detectron2 &&" in detectron2._mend(Path("detectron2"))


H100 = ["H100", [9, 0], 80 << 30]


@pytest.mark.parametrize(
    ("arches", "level"),
    [
        (["sm_80", "sm_90"], OK),
        (["sm_80", "compute_80"], OK),  # PTX runs on whatever comes later
        (["sm_80", "sm_86"], PROBLEM),
        (["sm_90a"], OK),
        (["sm_100", "compute_100"], PROBLEM),
    ],
)
def test_a_gpu_and_what_torch_was_compiled_for(arches, level):
    said = SOUND_TORCH | {"gpus": [H100], "arches": arches, "cuda": "13.0", "nccl": True}
    (found,) = gpu.check_gpu(Probe(said, ""), wanted=False)
    assert found.level == level
    assert "H100, 80 GiB, capability 9.0" in found.text


def test_several_gpus_need_nccl():
    said = SOUND_TORCH | {"gpus": [H100, H100], "arches": ["sm_90"], "cuda": "13", "nccl": False}
    found = gpu.check_gpu(Probe(said, ""), wanted=False)
    assert [one.level for one in found] == [OK, OK, PROBLEM]


def test_no_gpu_is_a_problem_only_where_one_is_wanted(monkeypatch):
    monkeypatch.setattr(gpu, "_DRIVER", Path("/no/driver"))
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    for wanted, level in ((False, NOTE), (True, PROBLEM)):
        (found,) = gpu.check_gpu(Probe(SOUND_TORCH, ""), wanted=wanted)
        assert found.level == level
    assert gpu.check_gpu(Probe({}, "no torch"), wanted=True) == []


def test_a_driver_with_a_torch_for_cpus(monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    (found,) = gpu.check_gpu(Probe(SOUND_TORCH | {"cuda": None}, ""), wanted=False)
    assert found.level == WARNING
    assert "built for CPUs" in found.text
    (found,) = gpu.check_gpu(Probe(SOUND_TORCH | {"cuda": "13.0"}, ""), wanted=False)
    assert "sees no GPU" in found.text


def test_operations_and_triton_on_the_gpu():
    said = SOUND_TORCH | {"gpus": [H100], "arches": ["sm_90"], "cuda": "13.0"}
    said |= {"gpu_ops": "error: RuntimeError: no kernel image", "triton": "3.5"}
    found = gpu.check_gpu(Probe(said, ""), wanted=True)
    assert [(one.level, one.subject) for one in found] == [
        (OK, "GPU"),
        (PROBLEM, "GPU"),
        (OK, "Triton"),
    ]


def _usage(monkeypatch, free):
    usage = type(shutil.disk_usage("/"))(100 * 10**9, 0, free)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage)


@pytest.mark.parametrize(("free", "level"), [(5e10, OK), (5e9, WARNING), (5e8, PROBLEM)])
def test_space_on_the_disk(tmp_path, monkeypatch, free, level):
    _usage(monkeypatch, int(free))
    monkeypatch.setattr(machine, "_write_speed", lambda folder: 1e9)
    (found,) = machine.check_disk(tmp_path / "not" / "yet")
    assert found.level == level
    assert found.subject == f"disk of {tmp_path}"


def test_a_slow_disk_and_one_that_cannot_be_written(tmp_path, monkeypatch):
    _usage(monkeypatch, 10**11)
    monkeypatch.setattr(machine, "_write_speed", lambda folder: 1e6)
    assert machine.check_disk(tmp_path)[0].level == WARNING

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine, "_write_speed", refuse)
    (found,) = machine.check_disk(tmp_path)
    assert (found.level, found.text) == (PROBLEM, "cannot be written: Permission denied")


def test_the_speed_is_measured_and_nothing_is_left(tmp_path):
    assert machine._write_speed(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_shared_memory(monkeypatch, tmp_path):
    _usage(monkeypatch, 64 << 20)
    small = machine.check_shared_memory()
    assert small.level == WARNING
    assert "--shm-size" in small.mend
    _usage(monkeypatch, 8 << 30)
    assert machine.check_shared_memory().level == OK
    monkeypatch.undo()
    assert machine.check_shared_memory(tmp_path / "none").level == NOTE


def test_open_files(monkeypatch):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (256, 4096))
    assert machine.check_open_files().mend == "ulimit -n 4096"
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (1024, 1024))
    assert machine.check_open_files().level == OK


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "150000 100000"},
        {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
    ],
)
def test_cores_of_a_container(tmp_path, monkeypatch, files):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    many = machine.check_cores(8, tmp_path)
    assert many.level == WARNING
    assert many.text.startswith("1.5 of 8 cores may be used, torch takes 8 threads")
    assert many.mend == "export OMP_NUM_THREADS=2"
    assert machine.check_cores(2, tmp_path).level == OK


def test_cores_without_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    (tmp_path / "cpu.max").write_text("max 100000")
    assert machine.check_cores(3, tmp_path).level == OK
    assert machine.check_cores(4, tmp_path).level == WARNING
    assert machine.check_cores(None, tmp_path).level == OK


def test_memory_of_a_container(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n")
    free = machine.check_memory(tmp_path, meminfo)
    assert (free.level, free.text) == (OK, "32.0 GiB free")
    (tmp_path / "memory.max").write_text(str(3 << 30))
    (tmp_path / "memory.current").write_text(str(1 << 30))
    tight = machine.check_memory(tmp_path, meminfo)
    assert tight.level == WARNING
    assert tight.text.startswith("2.0 GiB free (the container's limit)")


def test_data_sets_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert data.check_data_sets().level == NOTE
    for path in ("scenes/annotations", "scenes/val", "cityscapes/leftImg8bit/train"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "scenes/annotations/instances_val.json").touch()
    found = data.check_data_sets()
    assert found.level == OK
    assert found.text.endswith("; cityscapes_fine_train, cityscapes_fine_instance_seg_train, "
                               "scenes_val")  # fmt: skip
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "none"))
    assert data.check_data_sets().level == PROBLEM
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    assert data.check_data_sets().level == NOTE


def test_the_cache_is_the_one_that_imports_use(tmp_path, monkeypatch):
    from mask_rcnn_ext.data.import_cache import cache_dir

    for name in ("MASK_RCNN_EXT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert data.check_cache() == Finding(OK, "cache", str(cache_dir()))
        monkeypatch.delenv(name)
    assert data.check_cache().text == str(cache_dir())


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MASK_RCNN_EXT_CACHE", str(tmp_path / "file" / "below"))
    assert data.check_cache().level == WARNING


@pytest.mark.parametrize(("level", "code"), [(OK, 0), (WARNING, 0), (PROBLEM, 1)])
def test_exit_code_and_report(tmp_path, monkeypatch, capsys, level, code):
    finding = Finding(level, "thing", "is so", "mend it")
    monkeypatch.setattr(doctor, "_checks", lambda args: [lambda: [finding]])
    report = tmp_path / "report.json"
    assert doctor.main(["--json", str(report)], "doctor") == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{level:8} thing: is so"
    assert lines[1].strip() == "mend: mend it"
    said = json.loads(report.read_text())
    assert said["counts"][level] == 1
    assert said["findings"] == [
        {"level": level, "subject": "thing", "text": "is so", "mend": "mend it"}
    ]


def test_all_checks_are_made(monkeypatch, tmp_path):
    """Each finds something to say here, and torch is tried once."""
    tried = []

    def pretend(script):
        tried.append(script)
        return Probe(SOUND_TORCH | {"threads": 1}, "")

    for module in (doctor, detectron2, libraries):
        monkeypatch.setattr(module, "probe", pretend)
    args = argparse.Namespace(gpu=False, out=tmp_path, json=None)
    subjects = {one.subject.split()[0] for check in doctor._checks(args) for one in check()}
    assert subjects >= {"Python", "torch", "GPU", "Detectron2", "CPU", "memory", "disk", "shared",
                        "open", "data", "cache"}  # fmt: skip
    assert tried.count(libraries.TORCH_SCRIPT) == 1


def test_it_loads_neither_torch_nor_detectron2():
    code = (
        "import sys, types; package = types.ModuleType('mask_rcnn_ext')\n"
        "package.__path__ = [sys.argv[1]]; sys.modules['mask_rcnn_ext'] = package\n"
        "import mask_rcnn_ext.tools.doctor\n"
        "print([m for m in ('torch', 'detectron2', 'numpy', 'cv2') if m in sys.modules])"
    )
    package = Path(doctor.__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(package)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_this_environment_is_fine(tmp_path):
    code = "import sys; from mask_rcnn_ext.tools import doctor; sys.exit(doctor.main([], 'd'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr

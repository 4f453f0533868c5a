"""Get the sdist with the Python files of Detectron2 v0.6, checked by its hash."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from .errors import BuildError

ENV = "DETECTRON2_SDIST"

# What the sdist's setup.py reads, and what the outer pip tells this backend about itself: the inner
# pip would take the latter for the sdist's backend.
NOT_PASSED_ON = (
    *("D2_VERSION_SUFFIX", "BUILD_NIGHTLY", "FORCE_CUDA"),
    *("PEP517_", "_PYPROJECT_HOOKS_"),
)


def expected_hash(project):
    return re.search(r"sha256:([0-9a-f]{64})", (project / "requirement.txt").read_text()).group(1)


def find(project):
    """The sdist's bytes: of the file that $DETECTRON2_SDIST names, else fetched through pip."""
    given = os.environ.get(ENV)
    if not given:
        return _checked(_download(project), project, "the downloaded sdist")
    try:
        data = Path(given).read_bytes()
    except OSError as error:
        # pip runs this in the project's folder, so that a relative path means another file here
        raise BuildError(
            f"{ENV}={given} cannot be read ({error.strerror}); give the absolute path of the sdist."
        ) from error
    return _checked(data, project, f"{ENV}={given}")


def _checked(data, project, name):
    got, expected = hashlib.sha256(data).hexdigest(), expected_hash(project)
    if got != expected:
        raise BuildError(f"{name} has sha256 {got}, expected {expected}; it is not used.")
    return data


def _download(project):
    requirement = project / "requirement.txt"
    # pip wants the sdist's metadata, for which its setup.py imports torch: a stub is enough, since
    # nothing of it is built. Only this call sees the stub, and pip checks the hash before it.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(NOT_PASSED_ON)}
    paths = [str(project / "torch_stub"), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check"),
            *("--no-input", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"),
            *("--require-hashes", "-r", str(requirement), "-d", folder),
        ]
        result = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        found = list(Path(folder).glob("*.tar.gz"))
        if result.returncode or len(found) != 1:
            said = "\n".join(result.stdout.strip().splitlines()[-15:])
            raise BuildError(
                f"pip could not download {requirement.read_text().split()[0]} (exit status "
                f"{result.returncode}). It said:\n{said}\nIt was called as\n  "
                f"{' '.join(command)}\nwith your own pip settings (pip.conf, PIP_INDEX_URL, proxy; "
                "options of the outer pip command do not reach it). Correct them and repeat, or "
                f"bring the sdist (pb1_detectron2 0.6) yourself and set {ENV} to its path."
            )
        return found[0].read_bytes()


def read(data):
    """The sdist's regular files: path below its top folder -> bytes."""
    files = {}
    with tempfile.TemporaryFile() as stream:
        stream.write(data)
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:gz") as archive:
            for member in archive:
                if member.isfile():
                    path = member.name.split("/", 1)[-1]
                    files[path] = archive.extractfile(member).read()
    return files

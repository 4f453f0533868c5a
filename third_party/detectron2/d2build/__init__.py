"""PEP 517 backend: `pip install ./third_party/detectron2` makes and installs the wheel."""

from pathlib import Path

from . import assemble, installed, sdist, wheel
from .errors import BuildError

PROJECT = Path(__file__).resolve().parent.parent


class UnsupportedOperation(Exception):
    """The name PEP 517 gives to a hook that cannot serve."""


def get_requires_for_build_wheel(config_settings=None):
    _short_errors(installed.refuse_foreign)  # before anything is downloaded
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _short_errors(_build, Path(wheel_directory))


def build_sdist(sdist_directory, config_settings=None):
    raise UnsupportedOperation("there is no sdist of this; build a wheel (pip wheel).")


def _build(directory):
    installed.refuse_foreign()
    source = sdist.read(sdist.find(PROJECT))
    files = assemble.package_files(source, PROJECT)
    return wheel.write(directory, PROJECT, files, license_text=source["LICENSE"])


def _short_errors(function, *args):
    # pip shows what the hook's process printed: one message says more than a traceback.
    try:
        return function(*args)
    except BuildError as error:
        raise SystemExit(f"detectron2 was not built: {error}") from None

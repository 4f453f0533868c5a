"""Checksums that a file's name or a list beside it promises.

    resnet50-0676ba61.pth    torchvision: the first 8 digits of the sha256
    model_final_f10217.pkl   Detectron2's model zoo: the first 6 digits of the md5
    FILE.sha256, SHA256SUMS  lists as `sha256sum` writes them, in the file's folder

Many names only look so: an iteration (model_0001999.pth), a date (resnet50-20240131.pth), a commit.
So a name counts if its first part is one that the publisher uses, and digits alone only where
Detectron2 itself lists the name.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError

_ZOO = re.compile(r"model_final_([0-9a-f]{6})\.pkl")
_TORCHVISION = re.compile(r"([a-z0-9_.]+)-([0-9a-f]{8})\.pth")
_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?: [ *](.+))?")


@dataclass(frozen=True)
class Promise:
    """
    algorithm: "md5" or "sha256"
    digits: hexadecimal, the first ones or all
    origin: who says so, for messages
    """

    algorithm: str
    digits: str
    origin: str


def check_sums(path: Path) -> list[Promise]:
    """Compare a file with every checksum that is promised for it.

    Returns:
        the promises, all kept; an empty list where there is none
    Raises:
        UserError: another checksum, or a list that cannot be read; the message starts with a verb
    """
    found = promises(path)
    digests = {name: digest(path, name) for name in {promise.algorithm for promise in found}}
    for promise in found:
        came = digests[promise.algorithm][: len(promise.digits)]
        if came != promise.digits:
            raise UserError(
                f"is not the file that was published: {promise.origin} says {promise.algorithm} "
                f"{promise.digits}, this one has {came} ({path.stat().st_size} bytes). It was cut "
                "short, changed or renamed: fetch it again. If the file is yours, give it another "
                "name, or its list another line"
            )
    return found


def promises(path: Path) -> list[Promise]:
    """What is said of a file's checksum.

    Raises:
        UserError: a list that cannot be read; the message starts with a verb
    """
    found = [_of_name(path.name), *(_of_list(path, one) for one in _lists(path))]
    return [promise for promise in found if promise is not None]


def digest(path: Path, algorithm: str) -> str:
    """The file's checksum in hexadecimal."""
    with path.open("rb") as file:
        # md5 only tells transfers apart; it protects nobody
        make = functools.partial(hashlib.new, algorithm, usedforsecurity=False)
        return hashlib.file_digest(file, make).hexdigest()


def _of_name(name: str) -> Promise | None:
    zoo = _ZOO.fullmatch(name)
    if zoo and (_mixed(zoo[1]) or name in _zoo_names()):
        return Promise("md5", zoo[1], "its name (Detectron2's model zoo)")
    hub = _TORCHVISION.fullmatch(name)
    if hub and _mixed(hub[2]) and hub[1] in _torchvision_stems():
        return Promise("sha256", hub[2], "its name (torchvision)")
    return None


def _mixed(digits: str) -> bool:
    return not digits.isdecimal() and not digits.isalpha()


def _lists(path: Path) -> list[Path]:
    beside = (path.with_name(path.name + ".sha256"), path.with_name("SHA256SUMS"))
    return [one for one in beside if one.is_file()]


def _of_list(path: Path, manifest: Path) -> Promise | None:
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"has a list of checksums beside it, {manifest}, unreadable: {error}"
        ) from None
    own = manifest.name != "SHA256SUMS"
    for line in lines:
        entry = _LINE.fullmatch(line.strip())
        # A list of one file may leave its name out, or have that of another folder.
        if entry and (own or (entry[2] or "").removeprefix("./") == path.name):
            return Promise("sha256", entry[1].lower(), manifest.name)
    if own:
        raise UserError(f"has {manifest} beside it, which has no line as sha256sum writes it")
    return None


@functools.cache
def _zoo_names() -> frozenset[str]:
    try:
        from detectron2.model_zoo import model_zoo
    except ImportError:  # the official one needs pkg_resources, which newer setuptools lack
        return frozenset()
    urls = getattr(model_zoo, "_ModelZooUrls", None)
    suffixes = getattr(urls, "CONFIG_PATH_TO_URL_SUFFIX", {})
    return frozenset(suffix.rpartition("/")[2] for suffix in suffixes.values())


@functools.cache
def _torchvision_stems() -> frozenset[str]:
    from torchvision.models import get_model_weights, list_models

    entries = (entry for model in list_models() for entry in get_model_weights(model))
    names = (entry.url.rpartition("/")[2] for entry in entries)
    return frozenset(name.rpartition("-")[0] for name in names)

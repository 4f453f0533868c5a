"""Where a weights file lies: a path, or a name that Detectron2's PathManager can fetch."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

# detectron2.checkpoint registers catalog:// ; without it PathManager does not know the prefix.
from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils.file_io import Detectron2Handler, PathManager

from ...errors import UsageError, UserError


def local_path(name: str) -> Path:
    """
    Args:
        name: a path, `detectron2://...`, `catalog://...` or `https://...`; what is fetched stays in
            iopath's cache and is fetched once
    Raises:
        UsageError: a prefix that nobody knows
        UserError: fetching failed; says from where and where to put the file by hand
    """
    if "://" not in name:
        return Path(name).expanduser()
    url = _url_of(name)
    try:
        return Path(PathManager.get_local_path(name))
    except Exception as error:  # every network has errors of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot fetch {name} ({reason}). Fetch {url} on a machine that has a network, then "
            f"either give the file's path in place of {name}, or put it at {_cached(url)}, where "
            "Detectron2 looks before it fetches."
        ) from error


def _url_of(name: str) -> str:
    scheme, _, rest = name.partition("://")
    if scheme == "detectron2":
        return Detectron2Handler.S3_DETECTRON2_PREFIX + rest
    if scheme == "catalog":
        try:
            return ModelCatalog.get(rest)
        except (KeyError, RuntimeError) as error:
            raise UsageError(f"{name} is not in Detectron2's model catalog") from error
    if scheme in ("http", "https"):
        return name
    raise UsageError(
        f"weights {name}: expected a path, detectron2://, catalog:// or https://, not {scheme}://"
    )


def _cached(url: str) -> Path:
    # iopath's rule: the URL's path below its cache folder.
    cache = os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")
    return Path(cache).expanduser() / urlparse(url).path.lstrip("/")

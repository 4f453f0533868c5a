"""Where Detectron2 fetches published weights from, and where it keeps them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse


@dataclass(frozen=True)
class Published:
    """
    Attributes:
        url: that the address stands for
        path: the file in the cache of downloads, there or not; one put there is taken as it is
    """

    url: str
    path: Path


def published(address: str) -> Published:
    """
    Args:
        address: detectron2://, catalog:// or https://, as in MODEL.WEIGHTS. Nothing is fetched
    """
    from detectron2.checkpoint.catalog import ModelCatalog
    from detectron2.utils.file_io import Detectron2Handler

    scheme, _, name = address.partition("://")
    if scheme == "catalog":
        url = ModelCatalog.get(name)
    elif scheme == "detectron2":
        url = Detectron2Handler.S3_DETECTRON2_PREFIX + name
    else:
        url = address
    # As iopath's get_cache_dir says, which makes the folder, too.
    cache = Path(os.getenv("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser()
    return Published(url, cache / urlparse(url).path.lstrip("/"))


def is_fetched(address: str) -> bool:
    """Whether it is in the cache."""
    return published(address).path.is_file()

"""Where data sets come from: Python calls, YAML files, folders, the environment, our own YAMLs."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from ...errors import UsageError, UserError
from ...resources import datasets_dir
from ..spec import DatasetSpec, Part, parse_specs
from ..spec_file import read_documents
from . import catalog

REGISTRY_ENV = "MASK_RCNN_EXT_DATASETS"
_CITYSCAPES_OPTIONS = {"source": "polygons (default) or instanceIds"}

logger = logging.getLogger(__name__)
_looked_in: dict[str, None] = {}  # files and folders named so far, in order


def register_dataset(
    description: str | os.PathLike[str] | Mapping[str, Any] | None = None, /, **fields: Any
) -> list[str]:
    """Register a data set under the names that its description gives.

    No file of the data is looked at before the set is used. The same again is fine.

        register_dataset("my_toy.yaml")
        register_dataset(name="my_toy", annotations="my/train.json", images="my/images")
        register_dataset({"name": "toy", "format": "via", "splits": {"train": {...}}})

    Args:
        description: a YAML file, a folder of them, or a mapping of the same form
        fields: the mapping's keys, instead of it; relative paths are below the working directory
    Returns:
        the names, for DATASETS.TRAIN and DATASETS.TEST
    Raises:
        UsageError: a description that is wrong; a name that stands for something else
    """
    if (description is None) == (not fields):
        raise UsageError("register_dataset takes a file, a mapping, or keywords: one of them")
    if description is None or isinstance(description, Mapping):
        content = _plain(dict(description or fields))
        where = f"data set {content.get('name', '(no name)')!r}"
        specs = parse_specs(content, where, os.getcwd())
    else:
        specs = _specs_of(Path(description).expanduser())
    return _register(specs)


def register_coco_dataset(
    name: str, json_file: str | Path, image_root: str | Path, **metadata: Any
) -> None:
    """Register one set in COCO's format; class names and their order come from the file.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it
        json_file: annotations (images, annotations, categories), read when the set is first used
        image_root: folder that the `file_name`s are relative to
        metadata: more for the MetadataCatalog, e.g. keypoint_names
    Raises:
        UsageError: the name stands for other files already; the same again is fine
    """
    part = Part(os.path.abspath(json_file), os.path.abspath(image_root))
    _register([DatasetSpec(name, folder=os.getcwd(), parts=(part,), metadata=metadata)])


def register_from(paths: Iterable[str | os.PathLike[str]] = ()) -> list[str]:
    """Register all that $MASK_RCNN_EXT_DATASETS names, then the YAMLs and folders in `paths`.

    Args:
        paths: files, or folders whose `*.yaml` and `*.yml` are taken; relative to the working
            directory. The environment variable holds such paths with `os.pathsep` between.
    Returns:
        all names, also those that were registered before
    Raises:
        UsageError: a path that does not exist, a wrong description, a name taken by another set
    """
    if isinstance(paths, str):
        raise UsageError(f"a list of YAMLs and folders is expected, got the text {paths!r}")
    names = []
    for path in (*_paths_of_environment(), *paths):
        place = Path(path).expanduser()
        _looked_in[os.path.abspath(place)] = None
        names += _register(_specs_of(place))
    return names


def register_shipped() -> None:
    """Register the YAMLs that come with the package, and what the environment names.

    Where Detectron2 has registered the same name for the same place, ours takes over and keeps
    its metadata: files are looked for below the root of the moment, Cityscapes can be read.
    A broken file of the user's is only warned of here, as an import must not fail; any run says
    it again as an error.
    """
    for path in sorted(datasets_dir().glob("*.yaml")):
        for where, content in read_documents(path):
            for spec in parse_specs(content, where, None):
                if catalog.entry_of(spec.name) is not None:
                    continue
                if spec.name not in DatasetCatalog or catalog.replaces_detectron2s_own(spec):
                    catalog.add(spec)
                else:
                    logger.info("data set %s was registered by other code, which stays", spec.name)
    try:
        register_from()
    except UserError as error:
        logger.warning("%s: %s", REGISTRY_ENV, error)


def describe_unknown(name: str) -> str:
    """What to say of a name that nobody registered: the nearest ones, and where it was looked."""
    near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.5)
    setting = os.environ.get(REGISTRY_ENV)
    places = ", ".join(_looked_in) or "no other file"
    return (
        f"data set {name!r} is not registered"
        + (f"; nearest: {', '.join(near)}" if near else "")
        + f". Known are Detectron2's own names, the YAMLs in {datasets_dir()}, and {places} "
        f"({REGISTRY_ENV} is {setting or 'not set'}; DATASETS.REGISTRY names files and folders, "
        "too). docs/datasets.md describes how to register your own"
    )


def _paths_of_environment() -> list[str]:
    return [path for path in os.environ.get(REGISTRY_ENV, "").split(os.pathsep) if path]


def _specs_of(path: Path) -> list[DatasetSpec]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
        if not files:
            raise UsageError(f"the folder {path} holds no YAML of a data set")
    else:
        files = [path]
    return [
        spec
        for file in files
        for where, content in read_documents(file)
        for spec in parse_specs(content, where, os.path.abspath(file.parent))
    ]


def _register(specs: list[DatasetSpec]) -> list[str]:
    """All or, when one is refused, none."""
    seen: dict[str, DatasetSpec] = {}
    new = []
    for spec in specs:
        if spec.name in seen and spec != seen[spec.name]:
            raise UsageError(
                f"{spec.where}: data set {spec.name!r} is described twice, differently; "
                f"first by {seen[spec.name].where}"
            )
        if spec.name not in seen:
            seen[spec.name] = spec
            _check_options(spec)
            if catalog.check_registration(spec):
                new.append(spec)
    for spec in new:
        catalog.add(spec)
    return list(seen)


def _check_options(spec: DatasetSpec) -> None:
    if not spec.options:
        return
    from ..formats import IMPORTERS
    from ..formats.base import check_options

    if spec.format in IMPORTERS:
        known = dict(IMPORTERS[spec.format].OPTIONS)
    else:
        known = _CITYSCAPES_OPTIONS if spec.format == "cityscapes" else {}
    try:
        check_options(spec.format, spec.options, known)
    except UsageError as error:
        raise UsageError(f"{spec.where}: {error}") from error


def _plain(value: Any) -> Any:
    """Python's richer types as a YAML would give them: paths are text, tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value

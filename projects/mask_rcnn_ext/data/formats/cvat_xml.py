"""CVAT's XML as a tree, read without what XML has to attack its reader with."""

from __future__ import annotations

import xml.etree.ElementTree as tree
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ...errors import DataError
from .reading import read_bytes

LINE = "line in the file"  # attribute of each element that we add; no XML name can be like it


def read_tree(path: Path) -> tree.Element:
    """The root element; each element's attribute LINE says where it begins.

    A document type definition is refused: entities can be made to grow without end or to name
    other files, and CVAT never writes one.

    Raises:
        DataError: not well-formed, or with a document type definition
    """
    builder = tree.TreeBuilder()
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        builder.start(name, {**attributes, LINE: str(parser.CurrentLineNumber)})

    def doctype(*_: Any) -> None:
        raise DataError(f"{path} has a document type definition, which is not read: delete it")

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(read_bytes(path), True)
        return builder.close()
    except expat.ExpatError as error:
        raise DataError(f"{path} is not well-formed XML ({error})") from error

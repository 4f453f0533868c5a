"""Cityscapes: its label table, its folder tree, and its instances as COCO annotations.

`reader.read_cityscapes` is the way in. It is not imported here, since the generated scenes use the
label table without any reader. Nothing of `cityscapesscripts` or of Detectron2's own loader is
imported; tests compare with both.
"""

from .labels import LABELS, THINGS, Label

__all__ = ["LABELS", "THINGS", "Label"]

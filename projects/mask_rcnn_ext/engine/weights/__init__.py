"""Published weights: reading them safely, and bringing them into this project's models."""

from .classes import ClassTransfer, transfer_classes
from .convert import Conversion, build_on_cpu, check_output, convert, save
from .reconcile import reconcile_classes
from .safe_read import read_checkpoint, read_weights
from .sources import Source, recognise

__all__ = [
    "ClassTransfer",
    "Conversion",
    "Source",
    "build_on_cpu",
    "check_output",
    "convert",
    "read_checkpoint",
    "read_weights",
    "recognise",
    "reconcile_classes",
    "save",
    "transfer_classes",
]

"""Published weights: reading them safely, and bringing them into this project's models."""

from .convert import Conversion, build_on_cpu, check_output, convert, save
from .safe_read import read_weights
from .sources import Source, recognise

__all__ = [
    "Conversion",
    "Source",
    "build_on_cpu",
    "check_output",
    "convert",
    "read_weights",
    "recognise",
    "save",
]

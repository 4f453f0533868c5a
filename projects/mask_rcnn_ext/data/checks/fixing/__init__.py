"""Corrected annotation files: never over the input, every change in a list."""

from .repair import Repaired, changes_path, repair_file

__all__ = ["Repaired", "changes_path", "repair_file"]

"""Just enough of torch for the sdist's setup.py to state its metadata; nothing is built by it."""

from types import SimpleNamespace

__version__ = "2.6.0"
version = SimpleNamespace(hip=None)
cuda = SimpleNamespace(is_available=lambda: False)

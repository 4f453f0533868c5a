"""Metadata is in setup.cfg; this only puts configs/ and datasets/ inside the installed package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return  # the checkout's own folders are found, see resources.py
        for name in ("configs", "datasets"):
            for source in Path(name).rglob("*"):
                if source.suffix in (".yaml", ".md"):
                    target = Path(self.build_lib, "mask_rcnn_ext", source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildWithConfigs})

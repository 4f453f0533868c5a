"""mask_rcnn_ext: the Mask R-CNN paper (He et al., arXiv 1703.06870v3) as a Detectron2 project.

Importing the package registers its heads and data sets with Detectron2. Without Detectron2 the
import still works, so that `mask-rcnn-ext --help` and the scenes generator do; whatever needs
Detectron2 then says how to install it.
"""

import sys
from importlib.util import find_spec
from typing import Any

from .config import add_mask_rcnn_ext_config, finalize_config, load_config

# `mask-rcnn-ext doctor` must run where Detectron2 is broken; it needs neither.
if sys.argv[1:2] != ["doctor"] and find_spec("detectron2") is not None:
    from . import data as _data  # noqa: F401  # only registration
    from . import modeling as _modeling  # noqa: F401  # only registration
    from .compat import mend_keypoint_loss

    mend_keypoint_loss()

__version__ = "0.1.0"
__all__ = ["add_mask_rcnn_ext_config", "finalize_config", "load_config"]


def __getattr__(name: str) -> Any:
    if name == "Predictor":  # imported when first asked for: the package itself stays light
        from .engine.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

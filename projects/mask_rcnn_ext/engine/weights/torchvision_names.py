"""Names of torchvision's ResNets and ResNeXts in Detectron2's words.

conv1, bn1                        stem.conv1, stem.conv1.norm
layer1 ... layer4                 res2 ... res5
layerL.B.convI, layerL.B.bnI      resS.B.convI, resS.B.convI.norm
layerL.B.downsample.0, .1         resS.B.shortcut, resS.B.shortcut.norm
fc                                linear
"""

from __future__ import annotations

import re
from collections.abc import Collection


def is_torchvision(names: Collection[str]) -> bool:
    """Whether these are the names of torchvision's ResNet class (any depth, ResNeXt, wide)."""
    return "conv1.weight" in names and "layer1.0.conv1.weight" in names


def to_detectron2(name: str) -> str:
    """
    Args:
        name: such as "layer3.0.downsample.1.running_var"
    Returns:
        such as "res4.0.shortcut.norm.running_var"; names beyond the table are returned unchanged
    """
    name = re.sub(r"^layer([1-4])\.", lambda found: f"res{int(found[1]) + 1}.", name)
    name = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", name)
    name = re.sub(r"^fc\.", "linear.", name)
    name = re.sub(r"\.downsample\.0\.", ".shortcut.", name)
    name = re.sub(r"\.downsample\.1\.", ".shortcut.norm.", name)
    return re.sub(r"\.bn([1-3])\.", r".conv\1.norm.", name)

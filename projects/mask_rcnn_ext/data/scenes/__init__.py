"""Scenes: generated pictures with exact masks, boxes and keypoints, in COCO's layout on disk.

Every later path (loader, mapper, evaluator) is the one that real data take. The same seed gives
the same bytes on any machine. Needs numpy and pycocotools only.
"""

from .dataset import ScenesSummary, generate_scenes, generate_splits
from .render import GENERATOR_VERSION, Scene, SceneInstance, render_scene

__all__ = [
    "GENERATOR_VERSION",
    "Scene",
    "SceneInstance",
    "ScenesSummary",
    "generate_scenes",
    "generate_splits",
    "render_scene",
]

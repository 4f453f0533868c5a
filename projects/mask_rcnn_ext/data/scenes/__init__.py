"""Scenes: generated pictures with exact masks, boxes and keypoints.

On disk they lie as COCO does, or as Cityscapes with polygons and label images. Every later path
(loader, mapper, evaluator) is the one that real data take. The same seed gives the same bytes on
any machine, but for Cityscapes' label images, which are what the Pillow installed draws from the
polygons. COCO's layout needs numpy and pycocotools only.
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

"""Steps on the same global batch by one process and by two: `python global_batch_steps.py FOLDER`.

Writes one.pth and two.pth: for each case the losses (mean over processes) and the gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.loader import share_positions
from mask_rcnn_ext.modeling.padding import pad_like_the_global_batch
from mask_rcnn_ext.modeling.sampling import draws

SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 60,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 62,  # proposals are fewer, another number each image
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.2,
}
FPN = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
C4 = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
NARROW = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_HEADS.NUM_CLASSES": 9,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 200,
}
KEYPOINTS = {"MODEL.KEYPOINT_ON": True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (8,)}
SOFTMAX = {"MODEL.ROI_MASK_HEAD.LOSS": "softmax", "MODEL.ROI_MASK_HEAD.NAME": "MLPMaskHead"}
SAME = [(64, 64)] * 4
# name -> config, its overrides, objects of each image, sizes of the images, parts of the step
CASES: dict[str, tuple[str, dict[str, Any], list[int], list[tuple[int, int]], int]] = {
    "unequal": (FPN, KEYPOINTS, [5, 1, 2, 0], SAME, 1),
    "one process without objects": (FPN, KEYPOINTS, [3, 0, 4, 0], SAME, 1),
    "C4": (C4, NARROW, [4, 1, 1, 0], SAME, 1),
    "limit of mask RoIs, boxes predicted, keypoints by images": (
        FPN,
        KEYPOINTS
        | {
            "MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE": 2,
            "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True,
            "MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": False,
        },
        [3, 1, 2, 0],
        SAME,
        1,
    ),
    "softmax, other sizes": (
        FPN,
        SOFTMAX,
        [3, 1, 2, 0],
        [(64, 96), (96, 64), (48, 64), (64, 64)],
        1,
    ),
    "in parts": (FPN, {}, [5, 1, 2, 0], SAME, 2),
}


SEED, ITERATION = 5, 3


def image(position: int, objects: int, size: tuple[int, int]) -> dict[str, Any]:
    random = torch.Generator().manual_seed(position)
    height, width = size
    corners = torch.rand(objects, 2, generator=random) * torch.tensor([width, height]) * 0.5
    boxes = torch.cat([corners, corners + 8 + 20 * torch.rand(objects, 2, generator=random)], 1)
    masks = torch.zeros(objects, height, width, dtype=torch.bool)
    points = torch.full((objects, 17, 3), 2.0)
    for number, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        masks[number, y0 : (y0 + y1) // 2, x0:x1] = True
        # Some lie outside of the box, so that the counts are no multiple of 17.
        places = torch.rand(17, 2, generator=random) * 1.2
        points[number, :, :2] = torch.tensor([x0, y0]) + places * torch.tensor([x1 - x0, y1 - y0])
    instances = Instances(size)
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.randint(0, 9, (objects,), generator=random)
    instances.gt_masks = BitMasks(masks)
    instances.gt_keypoints = Keypoints(points)
    pixels = torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8)
    return {"image": pixels, "instances": instances}


def model_of(config: str, overrides: dict[str, Any]) -> nn.Module:
    words = [str(word) for pair in (SMALL | overrides).items() for word in pair]
    torch.manual_seed(1)
    model = build_model(load_config(config, words))
    for module in model.modules():
        if type(module).__name__ == "FrozenBatchNorm2d":
            module.weight.fill_(0.7)  # untrained, features would grow a thousandfold
    if overrides.get("MODEL.ROI_MASK_HEAD.NAME") != "MLPMaskHead":
        nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.05)
    return model


def step(name: str, rank: int, world: int) -> dict[str, Any]:
    config, overrides, objects, sizes, parts = CASES[name]
    model = model_of(config, overrides)
    pad_like_the_global_batch(model)
    trained = DistributedDataParallel(model) if world > 1 else model
    positions = share_positions(len(objects), rank, world)
    length = len(positions) // parts
    losses: dict[str, torch.Tensor] = {}
    torch.manual_seed(100 + rank)  # what the global generator holds must not matter
    with EventStorage():
        for start in range(0, len(positions), length):
            part = positions[start : start + length]
            with draws(SEED, ITERATION, part):
                found = trained([image(p, objects[p], sizes[p]) for p in part])
            (sum(found.values()) / parts).backward()
            for key, value in found.items():
                losses[key] = losses.get(key, 0) + value.detach() / parts
    for value in losses.values():
        if world > 1:
            distributed.all_reduce(value)
            value /= world
    grads = {key: value.grad for key, value in model.named_parameters()}
    return {"losses": losses, "grads": grads}


def all_steps(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
        )
    assert comm.get_world_size() == world
    found = {name: step(name, rank, world) for name in CASES}
    if rank == 0:
        torch.save(found, folder / ("two.pth" if world > 1 else "one.pth"))
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=all_steps, args=(rank, 2, folder)) for rank in range(2)]
    for child in children:
        child.start()
    all_steps(0, 1, folder)
    for child in children:
        child.join()
    sys.exit(max(abs(child.exitcode) for child in children))

"""The command line of `train_net.py`."""

from __future__ import annotations

import argparse
import textwrap

from detectron2.engine import default_argument_parser

_EPILOG = """
Examples (a name below configs/ is found from any folder):
  train_net.py --num-gpus 8 \\
      --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml
  train_net.py --config-file FILE MODEL.DEVICE cpu SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 0.0025
  train_net.py --config-file FILE --resume                       go on where the run stopped
  train_net.py --config-file FILE --eval-only MODEL.WEIGHTS output/model_final.pth

Data sets are looked for below $DETECTRON2_DATASETS (default: ./datasets); see datasets/README.md.
Exit code: 0 success, 1 failure or stopped, 2 wrong usage.
"""


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's parser with this project's examples."""
    parser = default_argument_parser(epilog=textwrap.dedent(_EPILOG))
    parser.description = "Train and evaluate Mask R-CNN."
    return parser

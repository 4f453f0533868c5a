"""The command line of `train_net.py`."""

from __future__ import annotations

import argparse
import textwrap

from detectron2.engine import default_argument_parser

_EPILOG = """
Examples (a name below configs/ is found from any folder):
  train_net.py --num-gpus 8 \\
      --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml
  torchrun --nproc-per-node 8 train_net.py --config-file FILE      also --nnodes, --max-restarts
  train_net.py --config-file FILE MODEL.DEVICE cpu SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 0.0025
  train_net.py --config-file FILE --resume        go on where a run stopped, under any config
  train_net.py --config-file FILE --eval-only MODEL.WEIGHTS output/model_final.pth

Data sets are looked for below $DETECTRON2_DATASETS (default: ./datasets); see datasets/README.md.
A run that was stopped or killed goes on when the same command is given again; --resume is needed
only with another config. SIGTERM, SIGUSR1 and Ctrl-C finish the step, save and leave with 75.

Exit code: 0 success, 1 failure, 2 wrong usage, 75 stopped on request: run the same command again.
"""


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's parser with this project's examples."""
    parser = default_argument_parser(epilog=textwrap.dedent(_EPILOG))
    parser.description = "Train and evaluate Mask R-CNN."
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="two runs with the same SEED give the same bits, on a CPU; on a GPU what may still "
        "differ is said. Slower",
    )
    return parser

#!/usr/bin/env python
"""Train and evaluate Mask R-CNN: `train_net.py --config-file FILE [KEY VALUE ...]`.

`mask-rcnn-ext train` is the same program. See --help, README.md and docs/.
"""

import argparse
import sys

from mask_rcnn_ext.errors import exit_code_of


def main(args: argparse.Namespace) -> int:
    """Set up, train or evaluate, in this process: one of several when there are several GPUs."""
    from mask_rcnn_ext.engine.run import run

    return run(args)


def invoke_main() -> int:
    """Parse the command line and launch as many processes as it asks for."""
    from mask_rcnn_ext.engine.launch import parse_and_launch

    return parse_and_launch(sys.argv[1:], main)


if __name__ == "__main__":
    sys.exit(exit_code_of(invoke_main, "train_net.py"))

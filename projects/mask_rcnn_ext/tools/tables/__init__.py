"""`mask-rcnn-ext tables`: the paper's tables, each row with what it takes to measure it.

  tables list    every row: the paper's figures, data, weights and hours that it takes, its state
  tables run     what rows take: stages, each once, kept when they are done
  tables report  the same beside what was measured, from records: Markdown, HTML, JSON

The tables are in configs/paper/, the stages that make their rows in configs/paper/stages.yaml.
"""

from __future__ import annotations

import argparse

from ..actions import add_actions, run_action
from . import listing, report, run_verb

HELP = "the paper's tables, and what each row takes to be measured"

ACTIONS = {"list": listing, "run": run_verb, "report": report}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_actions(parser, ACTIONS)


run = run_action

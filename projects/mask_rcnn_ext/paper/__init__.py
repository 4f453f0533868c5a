"""The paper's tables as data: what it printed, and the stages that make each row.

The files are in configs/paper/. Nothing here trains or evaluates; whoever does runs a stage through
the same entry as train_net.py.
"""

from .reading import load_paper
from .spec import Column, Comparison, Data, Delta, Figure, Paper, Row, Stage, Table, Weights
from .state import state_of

__all__ = [
    "Column",
    "Comparison",
    "Data",
    "Delta",
    "Figure",
    "Paper",
    "Row",
    "Stage",
    "Table",
    "Weights",
    "load_paper",
    "state_of",
]

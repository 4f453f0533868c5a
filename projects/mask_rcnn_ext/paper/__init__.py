"""The paper's tables as data: what it printed, the stages that make each row, what came of them.

The files are in configs/paper/. Nothing here trains or evaluates; whoever does runs a stage through
the same entry as train_net.py. A run leaves a record (`records`), whose key says what it is a
record of (`keys`); which records count `state` decides.
"""

from .code_version import code_hash
from .keys import Keys, NoFingerprint, UnknownStage
from .reading import load_paper
from .records import Kept, Record, find_records, fingerprints_in, read_record, write_record
from .spec import Column, Comparison, Data, Delta, Figure, Paper, Row, Scenes, Stage, Table, Weights
from .state import RowState, Sorted, sort_records, state_of

__all__ = [
    "Column",
    "Comparison",
    "Data",
    "Delta",
    "Figure",
    "Kept",
    "Keys",
    "NoFingerprint",
    "Paper",
    "Record",
    "Row",
    "RowState",
    "Scenes",
    "Sorted",
    "Stage",
    "Table",
    "UnknownStage",
    "Weights",
    "code_hash",
    "find_records",
    "fingerprints_in",
    "load_paper",
    "read_record",
    "sort_records",
    "state_of",
    "write_record",
]

"""Where `tables run` keeps what: data, runs and records below one folder.

FOLDER/data/<data>/                     root of generated data sets (DETECTRON2_DATASETS)
FOLDER/runs/<stage>/seed_<n>/           the run's own folder (OUTPUT_DIR)
RECORDS/<scale>/<stage>/seed_<n>/       what is kept of it; FOLDER/records unless told otherwise
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .spec import Stage


@dataclass(frozen=True)
class Place:
    """
    Attributes:
        folder: of all
        records: of the records
    """

    folder: Path
    records: Path

    def root_of(self, data: str) -> Path:
        """Of generated data."""
        return self.folder / "data" / data

    def run_of(self, stage: Stage, seed: int) -> Path:
        return self.folder / "runs" / stage.id / f"seed_{stage.seed_for(seed)}"

    def weights_of(self, stage: Stage, seed: int) -> Path:
        """Of a stage that trains."""
        return self.run_of(stage, seed) / "model_final.pth"

    def proposals_of(self, stage: Stage, seed: int, data_set: str) -> Path:
        """Of a stage that dumps them."""
        return self.run_of(stage, seed) / "inference" / data_set / "box_proposals.pkl"

    def labels_of(self, stage: Stage, seed: int) -> Path:
        """Of a stage that distills."""
        return self.run_of(stage, seed) / "labels.json"

    def registry_of(self, stage: Stage, seed: int) -> Path:
        """Of a stage that distills: the YAML that registers its labels."""
        return self.run_of(stage, seed) / "registry.yaml"

    def distilled_of(self, stage: Stage, seed: int) -> Path:
        """Of a stage that distills: its counts, and where the images are."""
        return self.run_of(stage, seed) / "distill.json"

    def bench_of(self, stage: Stage, seed: int) -> Path:
        """Of a stage that takes times."""
        return self.run_of(stage, seed) / "bench.json"

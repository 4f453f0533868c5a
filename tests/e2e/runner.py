"""train_net.py in a process of its own, on a model and a schedule that take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from zygote import Zygote

ZYGOTE: Zygote = None  # type: ignore[assignment]  # conftest.py sets it

CONFIG = "configs/quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
TINY = {
    "MODEL.DEVICE": "cpu",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.MAX_ITER": "3",
    "SOLVER.BASE_LR": "0.001",
    "SOLVER.CHECKPOINT_PERIOD": "2",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": "64",
    "DATALOADER.NUM_WORKERS": "1",
    "TEST.SAMPLE_PICTURES": "2",
    "TEST.SAMPLE_SCORE_THRESH": "0.0",
    "SEED": "7",
}


class Runner:
    def __init__(self, root: Path, datasets: Path, out: Path):
        self.root, self.datasets, self.out = root, datasets, out

    def command(self, *flags: str, config: str = CONFIG, **overrides: str) -> list[str]:
        settings = TINY | {"OUTPUT_DIR": str(self.out)}
        settings |= {key.replace("__", "."): value for key, value in overrides.items()}
        words = [word for pair in settings.items() for word in pair]
        return [sys.executable, "train_net.py", "--config-file", config, *flags, *words]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "DETECTRON2_DATASETS": str(self.datasets),
            "MASK_RCNN_EXT_CACHE": str(self.out.parent / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def __call__(
        self, *flags: str, fresh: bool = False, **kwargs: str
    ) -> subprocess.CompletedProcess:
        """
        Args:
            fresh: in a Python of its own, as a user's shell does it, and not in a fork
        """
        command = self.command(*flags, **kwargs)
        if fresh:
            return subprocess.run(
                command,
                cwd=self.root,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=240,
            )
        self.start(command)
        code = ZYGOTE.wait()
        return subprocess.CompletedProcess(command, code, *self.output())

    def start(self, command: list[str]) -> int:
        """Its pid; `ZYGOTE.wait()` ends it and `output()` has what it said."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        for path in self._logs():
            path.unlink(missing_ok=True)
        out, err = self._logs()
        return ZYGOTE.start(command, cwd=self.root, env=self.environment, stdout=out, stderr=err)

    def output(self) -> tuple[str, str]:
        out, err = self._logs()
        return out.read_text(), err.read_text()

    def _logs(self) -> tuple[Path, Path]:
        return self.out.with_name(f"{self.out.name}.out"), self.out.with_name(
            f"{self.out.name}.err"
        )

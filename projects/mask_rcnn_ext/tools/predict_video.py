"""Videos as a stream of frames, in and out; never more than a few frames in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError, UserError

_CODEC = "mp4v"
_FALLBACK_RATE = 25.0  # frames a second, for a file that does not say


class VideoReader:
    """The frames of a video, decoded as they are asked for."""

    def __init__(self, path: Path):
        """
        Raises:
            DataError: missing, or no video that can be decoded
        """
        if not path.exists():
            raise DataError(f"video {path} does not exist")
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(f"video {path} does not decode")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _FALLBACK_RATE
        # What the file's head says; the stream may hold fewer.
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames, (H, W, 3) uint8 RGB.

        Raises:
            DataError: not a single frame
        """
        frames = 0
        try:
            while True:
                there, frame = self._capture.read()
                if not there:
                    break
                frames += 1
                yield np.ascontiguousarray(frame[:, :, ::-1])
        finally:
            self._capture.release()
        if not frames:
            raise DataError(f"video {self.path} has no frame that decodes")


class VideoWriter:
    """Frames into an mp4, which has its name only once it is complete."""

    def __init__(self, path: Path, rate: float):
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 RGB frame; all frames have the first one's size.

        Raises:
            UserError: the file cannot be written
        """
        if self._writer is None:
            height, width = frame.shape[:2]
            codec = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(str(self._partial), codec, self._rate, (width, height))
            if not self._writer.isOpened():
                raise UserError(f"cannot write the video {self.path} ({width}x{height}, {_CODEC})")
        self._writer.write(np.ascontiguousarray(frame[:, :, ::-1]))

    def close(self, *, complete: bool) -> None:
        """End the file; an incomplete one is removed."""
        if self._writer is None:
            return
        self._writer.release()
        if complete:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)

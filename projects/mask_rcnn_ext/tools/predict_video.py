"""Videos as a stream of frames, in and out; never more than a few frames in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError, UserError

_CODEC = "mp4v"
_COMPLETE = 0.97  # of the announced frames
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
            DataError: after the last frame, if there are fewer than the file announces
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
        # The head's number may be an estimate, from length and rate.
        if frames < self.announced * _COMPLETE - 1:
            raise DataError(
                f"video {self.path} announces {self.announced} frames, but only {frames} decode; "
                "is it cut short?"
            )


class VideoWriter:
    """Frames into an mp4, which has its name only once it is complete."""

    def __init__(self, path: Path, rate: float):
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._rate = rate
        self._size = (0, 0)
        self._frames = 0
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 RGB frame; all are brought to the first one's size.

        Raises:
            UserError: the file cannot be written
        """
        if self._writer is None:
            height, width = frame.shape[:2]
            # The codec stores pairs of rows and columns; OpenCV would drop the last odd one.
            height, width = height + height % 2, width + width % 2
            self._size = (height, width)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(str(self._partial), codec, self._rate, (width, height))
            if not self._writer.isOpened():
                raise UserError(f"cannot write the video {self.path} ({width}x{height}, {_CODEC})")
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        height, width = self._size
        if (bgr.shape[0] + 1) // 2 * 2 == height and (bgr.shape[1] + 1) // 2 * 2 == width:
            below, right = height - bgr.shape[0], width - bgr.shape[1]
            bgr = cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_REPLICATE)
        else:
            bgr = cv2.resize(bgr, (width, height))
        self._writer.write(bgr)
        self._frames += 1

    def close(self, *, complete: bool) -> None:
        """End the file; an incomplete one is removed.

        Raises:
            UserError: `complete`, but not all frames are in the file: the disk is full
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if not complete:
            self._partial.unlink(missing_ok=True)
            return
        # OpenCV does not say that a write failed.
        written = cv2.VideoCapture(str(self._partial))
        frames = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if frames != self._frames:
            self._partial.unlink(missing_ok=True)
            raise UserError(
                f"the video {self.path} could not be written: {frames} of {self._frames} frames "
                "arrived; is the disk full?"
            )
        self._partial.replace(self.path)

"""A PNG writer whose bytes depend on the picture alone.

Deflate streams differ between zlib, its successors and their versions, so pictures are stored
uncompressed: any reader accepts that, and noisy ones would not shrink much anyway. Label images,
nearly all of which is the same as the row above, go through our own `deflate`.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .deflate import zlib_runs

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 65535  # most bytes that a stored deflate block can hold


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks."""
    blocks = [b"\x78\x01"]
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        blocks += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> PNG's number for grey, RGB, RGBA


def encode_png(image: np.ndarray, runs: bool = False) -> bytes:
    """Encode a picture.

    Args:
        image: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16
        runs: compress what is the same as in the row above; for label images
    """
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    depth = 8 * image.dtype.itemsize
    data = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder(">")).view(np.uint8)
    rows = np.zeros((height, 1 + channels * width * depth // 8), dtype=np.uint8)
    rows[:, 1:] = data.reshape(height, -1)  # a 0 before each row: no filter
    if runs:
        rows[1:, 1:] -= data.reshape(height, -1)[:-1]
        rows[1:, 0] = 2  # the difference to the row above, modulo 256
    header = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[channels], 0, 0, 0)
    pixels = (zlib_runs if runs else _stored)(rows.tobytes())
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels)
    return _SIGNATURE + body + _chunk(b"IEND", b"")


def png_size(height: int, width: int) -> int:
    """Bytes of an 8-bit RGB file without `runs`."""
    data = height * (1 + 3 * width)
    return len(_SIGNATURE) + 3 * 12 + 13 + 2 + 5 * -(-data // _BLOCK) + data + 4

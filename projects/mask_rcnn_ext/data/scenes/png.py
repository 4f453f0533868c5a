"""A PNG writer whose bytes depend on the picture alone.

Deflate streams differ between zlib, its successors and their versions, so the data are stored
uncompressed: any reader accepts that, and noisy pictures would not shrink much anyway.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

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


def encode_png(image: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 RGB as an 8-bit RGB file."""
    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # a 0 before each row: no filter
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows.tobytes()))
    return _SIGNATURE + body + _chunk(b"IEND", b"")


def png_size(height: int, width: int) -> int:
    """Bytes of such a file."""
    data = height * (1 + 3 * width)
    return len(_SIGNATURE) + 3 * 12 + 13 + 2 + 5 * -(-data // _BLOCK) + data + 4

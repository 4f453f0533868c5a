"""Deflate for data that are mostly runs of one byte, with the same bytes from any machine.

One block with deflate's fixed codes (RFC 1951, section 3.2.6); the only matches are those at
distance 1, which repeat the byte before. zlib's own output is smaller, but differs between zlib,
its successors and their versions.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_LONGEST, _SHORTEST = 258, 3  # bytes that a match repeats
_END = 256  # the symbol that ends a block


def _reversed(code: int, bits: int) -> int:
    """Huffman codes are sent highest bit first, all else lowest bit first."""
    return int(f"{code:0{bits}b}"[::-1], 2)


def _fixed_code(symbol: int) -> tuple[int, int]:
    """A symbol's bits as they are sent, lowest first, and how many."""
    if symbol < 144:
        code, bits = 0x30 + symbol, 8
    elif symbol < 256:
        code, bits = 0x190 + symbol - 144, 9
    elif symbol < 280:
        code, bits = symbol - 256, 7
    else:
        code, bits = 0xC0 + symbol - 280, 8
    return _reversed(code, bits), bits


def _match_codes() -> dict[int, tuple[int, int]]:
    """Length -> bits of a match at distance 1 and how many: length code, extra bits, distance."""
    codes = {}
    symbol, length = 257, _SHORTEST
    for extra in (0, 0, 1, 2, 3, 4, 5):  # four symbols each
        for _ in range(4):
            for more in range(1 << extra):
                code, bits = _fixed_code(symbol)
                codes[length + more] = code | more << bits, bits + extra + 5  # distance code 00000
            symbol, length = symbol + 1, length + (1 << extra)
    code, bits = _fixed_code(285)
    codes[_LONGEST] = code, bits + 5
    return codes


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """(2, 256) codes of literals, (2, 259) of matches by length: bits, and how many."""
    literals = np.array([_fixed_code(symbol) for symbol in range(256)], dtype=np.int64).T
    matches = np.zeros((2, _LONGEST + 1), dtype=np.int64)
    for length, code in _match_codes().items():
        matches[:, length] = code
    return literals, matches


_LITERALS, _MATCHES = _tables()


def zlib_runs(data: bytes) -> bytes:
    """A zlib stream of `data`, which any zlib unpacks."""
    head, tail = b"\x78\x01", struct.pack(">I", zlib.adler32(data))
    values = np.frombuffer(data, dtype=np.uint8)
    codes, bits = _tokens(values)
    return head + _pack(codes, bits) + tail


def _tokens(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The block's codes in order and their lengths in bits: (T,) int64 each."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 1)) if len(values) else values
    lengths = np.diff(starts, append=len(values))
    # A run: its byte, full matches, then a shorter match or, below its least length, the byte.
    full, rest = np.divmod(lengths - 1, _LONGEST)
    short = rest >= _SHORTEST
    again = np.where(short, 0, rest)
    counts = 1 + full + short + again
    first = np.cumsum(counts) - counts  # (runs,) place of each run's first token
    total = int(counts.sum())
    run = np.repeat(np.arange(len(starts)), counts)
    place = np.arange(total) - first[run]
    is_full = (place >= 1) & (place <= full[run])
    is_short = short[run] & (place == full[run] + 1)
    length = np.where(is_full, _LONGEST, np.where(is_short, rest[run], 0))
    literal = _LITERALS[:, values[starts][run]]
    tokens = np.where(length > 0, _MATCHES[:, length], literal)  # (2, T)
    end = np.array([_fixed_code(_END)]).T
    header = np.array([[0b011], [3]])  # last block, fixed codes
    codes, bits = np.concatenate([header, tokens, end], axis=1)
    return codes, bits


def _pack(codes: np.ndarray, bits: np.ndarray) -> bytes:
    """The codes one after the other, lowest bit first, filled up with zeros."""
    token = np.repeat(np.arange(len(codes)), bits)
    shift = np.arange(len(token)) - np.repeat(np.cumsum(bits) - bits, bits)
    return np.packbits((codes[token] >> shift & 1).astype(np.uint8), bitorder="little").tobytes()

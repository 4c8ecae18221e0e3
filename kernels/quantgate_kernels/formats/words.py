"""Codes of any width in int32 words: a little-endian stream of bits, so that whole words cut a row anywhere.

Code j of a stream of `bits` wide codes sits in the bits j*bits ... j*bits + bits - 1, counted from the lowest bit of
word 0. Twelve-bit codes therefore cross the border between two words; 32 codes always fill `bits` whole words.
"""

from __future__ import annotations

import math

import torch

WORD_BITS = 32


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes [..., n] of `bits` (1 to 16) bits each, as int32 words [..., n * bits / 32].

    Raises:
        ValueError: n codes do not fill whole words, or a code is out of range.
    """
    count = codes.shape[-1]
    if count * bits % WORD_BITS:
        raise ValueError(f"{count} codes of {bits} bits do not fill whole words of {WORD_BITS} bits")
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= 1 << bits):
        raise ValueError(f"codes must lie in 0..{(1 << bits) - 1}")
    period, words = _period(bits)
    streams = codes.to(torch.int64).reshape(*codes.shape[:-1], -1, period)
    packed = streams.new_zeros(*streams.shape[:-1], words)
    for place in range(period):
        word, shift = divmod(place * bits, WORD_BITS)
        packed[..., word] |= streams[..., place] << shift
        if shift + bits > WORD_BITS:
            packed[..., word + 1] |= streams[..., place] >> (WORD_BITS - shift)
    # The low 32 bits as they are: the top one becomes the sign.
    return (packed << WORD_BITS >> WORD_BITS).to(torch.int32).flatten(-2)


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """The int32 codes [..., n] in int32 words [..., n * bits / 32]: the inverse of `pack`.

    Raises:
        ValueError: the words are no int32, or hold a broken number of codes.
    """
    period, per_period = _period(bits)
    if words.dtype != torch.int32 or words.shape[-1] % per_period:
        raise ValueError(f"{words.dtype} words {list(words.shape)} do not hold whole groups of {bits}-bit codes")
    stream = (words.to(torch.int64) & 0xFFFFFFFF).reshape(*words.shape[:-1], -1, per_period)
    codes = torch.empty(*stream.shape[:-1], period, dtype=torch.int32, device=words.device)
    for place in range(period):
        word, shift = divmod(place * bits, WORD_BITS)
        code = stream[..., word] >> shift
        if shift + bits > WORD_BITS:
            code = code | stream[..., word + 1] << (WORD_BITS - shift)
        codes[..., place] = code & ((1 << bits) - 1)
    return codes.flatten(-2)


def _period(bits: int) -> tuple[int, int]:
    """(codes, words) after which the stream's borders fall together again."""
    if not 1 <= bits <= 16:
        raise ValueError(f"codes have 1 to 16 bits, not {bits}")
    length = math.lcm(bits, WORD_BITS)
    return length // bits, length // WORD_BITS

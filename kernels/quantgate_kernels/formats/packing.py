"""Eight signed 4-bit codes in one int32 word: the `weight_packed` layout of compressed-tensors.

Code j of a word sits in bits 4j..4j+3 as `code + 8` (lowest nibble first). Words run along the input
dimension, so a row of a weight stays one contiguous run and can be split by rows or by whole words.
"""

import torch

CODES_PER_WORD = 8
LOWEST, HIGHEST = -8, 7


def pack_int4(codes: torch.Tensor) -> torch.Tensor:
    """Pack signed codes [O, I] (any integer dtype, each in -8..7) into int32 words [O, I/8].

    Raises ValueError when `codes` is not a matrix of integers, I is not a multiple of 8 or a code is out of
    range.
    """
    if codes.ndim != 2 or codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"codes must be a matrix of integers, not {codes.dtype} {list(codes.shape)}")
    if codes.shape[1] % CODES_PER_WORD:
        raise ValueError(f"the {codes.shape[1]} columns of the codes are not a multiple of {CODES_PER_WORD}")
    if codes.numel() and (int(codes.min()) < LOWEST or int(codes.max()) > HIGHEST):
        raise ValueError(f"codes must lie in {LOWEST}..{HIGHEST}")
    nibbles = codes.to(torch.int32) - LOWEST
    words = nibbles[:, 0::CODES_PER_WORD].clone()
    for lane in range(1, CODES_PER_WORD):
        # The top lane reaches the sign bit: two's complement keeps the bits, which is all a word is.
        words |= nibbles[:, lane::CODES_PER_WORD] << (4 * lane)
    return words


def unpack_int4(words: torch.Tensor) -> torch.Tensor:
    """Unpack int32 words [O, I/8] into int8 codes [O, I], each in -8..7: the inverse of `pack_int4`.

    Raises ValueError when `words` is not an int32 matrix.
    """
    if words.ndim != 2 or words.dtype != torch.int32:
        raise ValueError(f"packed words must be an int32 matrix, not {words.dtype} {list(words.shape)}")
    rows, columns = words.shape
    codes = torch.empty(rows, columns * CODES_PER_WORD, dtype=torch.int8, device=words.device)
    for lane in range(CODES_PER_WORD):
        # The arithmetic shift smears the sign bit; the mask removes it again.
        codes[:, lane::CODES_PER_WORD] = (((words >> (4 * lane)) & 0xF) + LOWEST).to(torch.int8)
    return codes

"""The AQLM project's format: what is stored, and its weight worked out again from the layout's description."""

from __future__ import annotations

import pytest
import torch
from quantgate_kernels.formats.aqlm import AQLMLayout, decode, encode, read, units

LAYOUTS = [AQLMLayout(2, 8), AQLMLayout(1, 16), AQLMLayout(1, 12), AQLMLayout(2, 4, in_group=4, out_group=2)]


def random_parts(layout: AQLMLayout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [6, 5, M] that reach both ends, codebooks and scales [6], in fp16 values."""
    generator = torch.Generator().manual_seed(layout.bits)
    codes = torch.randint(layout.entries, (6, 5, layout.books), generator=generator)
    codes[0, 0], codes[5, 4] = 0, layout.entries - 1
    books = torch.randn(layout.books, layout.entries, layout.out_group, layout.in_group, generator=generator)
    return codes, books.half(), (torch.rand(6, generator=generator) + 0.1).half()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_weight_is_the_sum_of_its_entries_times_the_scale(layout: AQLMLayout) -> None:
    codes, books, scales = random_parts(layout)
    stored = encode(codes, books, scales)
    assert stored["codes"].dtype == (torch.int8 if layout.bits <= 8 else torch.int16) and (stored["codes"] < 0).any()
    assert stored["scales"].shape == (6, 1, 1, 1) and stored["codebooks"].dtype == torch.float16
    rows, columns = 6 * layout.out_group, 5 * layout.in_group
    assert layout.nbytes(rows, columns) == sum(tensor.nbytes for tensor in stored.values())
    # As transformers' layer, the aqlm package's, does it: codes modulo 2^bits, an embedding bag over all books, scales.
    flat = stored["codes"].long() % layout.entries + torch.arange(layout.books) * layout.entries
    bag = torch.nn.functional.embedding_bag(
        flat.flatten(0, 1), books.float().flatten(0, 1).flatten(1), mode="sum"
    ).view(6, 5, layout.out_group, layout.in_group)
    theirs = (bag * stored["scales"].float()).swapaxes(-3, -2).reshape(rows, columns)
    assert torch.allclose(decode(stored), theirs, rtol=1e-6, atol=1e-6)
    for row, column in [(0, 0), (rows - 1, columns - 1), (rows // 2, 7)]:  # and by hand
        group = codes[row // layout.out_group, column // layout.in_group].tolist()
        place = (row % layout.out_group, column % layout.in_group)
        total = sum(float(books[book, code][place]) for book, code in enumerate(group))
        wanted = total * float(scales[row // layout.out_group])
        assert float(decode(stored)[row, column]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert torch.equal(read(stored, layout.settings(), {}), decode(stored))
    scale = scales.float().repeat_interleave(layout.out_group)[:, None]
    assert torch.allclose(units(codes, books) * scale, decode(stored))


def test_tensors_that_contradict_each_other_are_refused() -> None:
    layout = AQLMLayout(2, 4)
    codes, books, scales = random_parts(layout)
    stored = encode(codes, books, scales)
    with pytest.raises(ValueError, match="not those that the config describes"):
        read(stored, layout.settings() | {"in_group_size": 4}, {})
    with pytest.raises(KeyError):
        read(stored, {}, {})
    broken = {
        "scales": (stored["scales"][:3], r"scales \[3, 1, 1, 1\] do not fit"),
        "codes": (torch.full_like(stored["codes"], 16), "codes from 16 to 16 lie beyond 16 entries"),
        "codebooks": (stored["codebooks"][:1], "do not fit codebooks"),
    }
    for name, (tensor, message) in broken.items():
        with pytest.raises(ValueError, match=message):
            decode(stored | {name: tensor})
    with pytest.raises(ValueError, match=r"codes must lie in 0\.\.15"):
        encode(codes + 1, books, scales)
    with pytest.raises(ValueError, match="every scale positive and finite"):
        encode(codes, books, torch.zeros(6))
    with pytest.raises(ValueError, match="a power of two"):
        encode(codes, books[:, :5], scales)

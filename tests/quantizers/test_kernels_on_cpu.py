"""The source of the CUDA kernels, run on a CPU thread by thread, against torch."""

from __future__ import annotations

import pytest
import torch
from cuda_fibers import AVAILABLE, Kernel
from quantgate_kernels.formats.trellis import TrellisLayout, states, values
from quantgate_kernels.tables import normal_table

from quantizers import nearest_cuda, sweep
from quantizers.trellis import viterbi_cuda
from quantizers.trellis.viterbi import search_torch

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs g++ and a CPU with F16C")
PTX = {
    "minus": "return float_to_half(half_to_float(pair & 0xffff) - half_to_float(other & 0xffff)) | "
    "float_to_half(half_to_float(pair >> 16) - half_to_float(other >> 16)) << 16;",
    "low": "return half_to_float(pair & 0xffff);",
    "high": "return half_to_float(pair >> 16);",
    "half_of": "return float_to_half(value);",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state_bits", "bits", "recent", "plain"), [(10, 2, 1, 4), (10, 2, 0, 0), (10, 3, 1, 1), (9, 4, 1, 4)]
)
def test_the_search_finds_what_torch_finds(state_bits: int, bits: int, recent: int, plain: int) -> None:
    tiles, threads = 12, viterbi_cuda.threads_of(state_bits)
    numbers = {"L": state_bits, "K": bits, "THREADS": threads, "RECENT": recent, "PLAIN_OF_8": plain, "JOINED": 64}
    kernel = Kernel(viterbi_cuda.SOURCE, "search", numbers, PTX)
    table, generator = values(normal_table(state_bits)), torch.Generator().manual_seed(0)
    targets = (torch.randn(tiles, 256, generator=generator) * 128).round() / 128  # as the kernel rounds them
    choices = torch.empty(tiles * 288 * viterbi_cuda.words_of(state_bits, bits) * threads, dtype=torch.int32)
    for feedback in (torch.zeros(1, 16, 16), torch.triu(torch.rand(3, 16, 16, generator=generator) / 5, 1)):
        expected = search_torch(targets, feedback, table, bits)
        owners = torch.arange(tiles, dtype=torch.int32) // (tiles // len(feedback))
        found = torch.full((tiles, 256), 255, dtype=torch.uint8)
        kernel((tiles,), threads, [targets, feedback.contiguous(), owners, table, choices, found])
        ours, theirs = (
            float((table[states(each, TrellisLayout(bits, state_bits))] - targets).square().mean())
            for each in (found, expected)
        )
        assert ours == pytest.approx(theirs, rel=0.02)
        if not feedback.any():  # where errors move targets, these are no whole 1/128 any more
            assert int((found == expected).all(1).sum()) >= 10


@pytest.mark.parametrize(("dimensions", "entries", "tile"), [(4, 64, 32), (8, 128, 128)])
def test_the_nearest_entries_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, dimensions: int, entries: int, tile: int
) -> None:
    numbers = {"D": dimensions, "K": entries, "POINTS": nearest_cuda.POINTS, "TILE": tile}
    kernel = Kernel(nearest_cuda.SOURCE, "nearest", numbers, {})
    generator, experts, rows, width = torch.Generator().manual_seed(0), 2, 1500, 32

    def launch(
        _kernel: object, grid: tuple[int, ...], threads: int, arguments: list[torch.Tensor | int], _: object
    ) -> None:
        kernel(grid, threads, arguments)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    blocks = width // dimensions
    metric = torch.triu(random(experts, blocks, dimensions, dimensions) * 0.2) + torch.eye(dimensions)
    spread = torch.triu(random(experts, width, width) * 0.1, 1)
    part, scale, table = random(experts, rows, width), 1 + random(experts, rows).abs(), random(entries, dimensions)
    expected = sweep._group(part.clone(), metric, spread, scale, table)
    monkeypatch.setattr(nearest_cuda, "usable", lambda weights, table: True)
    monkeypatch.setattr(nearest_cuda, "compiled", lambda *arguments: None)
    monkeypatch.setattr(nearest_cuda, "launch", launch)
    codes, errors, costs = sweep._group(part.clone(), metric, spread, scale, table)
    assert float((codes == expected[0]).float().mean()) > 0.999
    assert torch.allclose(costs, expected[2], rtol=1e-3)
    same = (codes == expected[0]).all(2)
    assert torch.allclose(errors[same], expected[1][same], atol=1e-5)

"""The CUDA kernel of the search against the search in torch; what needs a GPU skips without one."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from quantgate_kernels.formats.trellis import TrellisLayout, states, values
from quantgate_kernels.tables import normal_table

from quantizers import cupy_kernels
from quantizers.curvature import Curvature
from quantizers.each import quantize_each
from quantizers.schemes import TIERS
from quantizers.tall import turned_hessian
from quantizers.trellis import viterbi_cuda
from quantizers.trellis.viterbi import search, search_torch

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
CUPY = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="needs cupy")


def problem(tiles: int, state_bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(tiles, 256, generator=torch.Generator().manual_seed(tiles)), values(normal_table(state_bits))


def squared_errors(symbols: torch.Tensor, targets: torch.Tensor, table: torch.Tensor, bits: int) -> torch.Tensor:
    found = table[states(symbols.cpu(), TrellisLayout(bits, len(table).bit_length() - 1))]
    return (found - targets).square().mean(1)


@GPU
@CUPY
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("state_bits", [9, 10, 12, 14, 16])
def test_the_kernel_finds_what_torch_finds(state_bits: int, bits: int) -> None:
    """The kernel rounds targets to 1/128, so these are; then only paths that are as good may differ, in few tiles."""
    targets, table = problem(48, state_bits)
    targets = (targets * 128).round() / 128
    feedback = torch.zeros(16, 16)
    device = torch.device("cuda", torch.cuda.current_device())
    assert viterbi_cuda.usable(device, table, bits)
    expected = search_torch(targets, feedback, table, bits)
    found = search(targets.cuda(), feedback.cuda(), table.cuda(), bits).cpu()
    same = (found == expected).all(1)
    assert int(same.sum()) >= 40
    ours, theirs = (squared_errors(part, targets, table, bits) for part in (found, expected))
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), rel=3e-3)


@GPU
@CUPY
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_kernel_feeds_errors_forward(bits: int) -> None:
    targets, table = problem(64, 12)
    feedback = torch.triu(torch.full((16, 16), 0.1), 1)
    expected = search_torch(targets, feedback, table, bits)
    found = search(targets.cuda(), feedback.cuda(), table.cuda(), bits).cpu()
    unfed = search(targets.cuda(), torch.zeros(16, 16).cuda(), table.cuda(), bits).cpu()
    assert int((unfed == expected).all(1).sum()) <= 4  # a tile whose errors are small may come out the same
    ours, theirs = (squared_errors(part, targets, table, bits) for part in (found, expected))
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), rel=0.01)


@GPU
@CUPY
def test_the_kernel_has_feedback_for_each_run_of_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit what the runs have alone, in one launch as in several."""
    targets, table = problem(600, 10)
    feedback = torch.triu(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1)) / 5, 1).cuda()
    targets, table = targets.cuda(), table.cuda()
    runs = [viterbi_cuda.search(targets[200 * n : 200 * n + 200], feedback[n], table, 2) for n in range(3)]
    assert torch.equal(viterbi_cuda.search(targets, feedback, table, 2), torch.cat(runs))
    monkeypatch.setattr(viterbi_cuda, "WAVES", 1)
    assert torch.equal(viterbi_cuda.search(targets, feedback, table, 2), torch.cat(runs))
    assert not torch.equal(viterbi_cuda.search(targets, feedback[0], table, 2), torch.cat(runs))


@GPU
@CUPY
@pytest.mark.parametrize("tier", ["vq1", "vq2", "trellis2-l12", "int4", "int4-rotated"])
def test_experts_are_quantized_together_as_each_is_alone(tier: str) -> None:
    generator, places = torch.Generator().manual_seed(0), torch.arange(256)
    scheme = TIERS[tier]({"a": 256}, None, 0.01)
    weights = [torch.randn(64, 256, generator=generator).cuda() for _ in range(5)]
    hessians = [(each ** (places[:, None] - places).abs()).cuda() for each in (0.5, 0.7, 0.8, 0.9, 0.95)]
    each = quantize_each(scheme, weights, hessians, lambda: None)
    for weight, hessian, found in zip(weights, hessians, each, strict=True):
        turned, curvature, errors = scheme.turn(weight), Curvature(turned_hessian(scheme, hessian)), []
        for parts in (found, scheme.quantize(turned, curvature, lambda: None)):
            error = turned - scheme.scaled(scheme.units(parts), parts["scales"])
            errors.append(float(((error @ curvature.hessian) * error).sum()))
        assert errors[0] == pytest.approx(errors[1], rel=0.01)


@GPU
@CUPY
def test_many_tiles_are_searched_in_several_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, table = problem(300, 10)
    arguments = targets.cuda(), torch.zeros(16, 16).cuda(), table.cuda(), 2
    once = viterbi_cuda.search(*arguments)
    monkeypatch.setattr(viterbi_cuda, "WAVES", 1)
    assert torch.equal(viterbi_cuda.search(*arguments), once)
    assert torch.equal(viterbi_cuda.search(*arguments), once)


@GPU
@CUPY
@pytest.mark.parametrize("tier", ["trellis2-l12", "trellis3-l12", "trellis4-l12"])
def test_a_weight_is_quantized_as_well_as_on_a_cpu(tier: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, places = torch.randn(64, 256, generator=generator), torch.arange(256)
    hessian = 0.9 ** (places[:, None] - places).abs()
    scheme = TIERS[tier]({"a": 256}, None, 0.01)
    errors = []
    for device in ("cpu", "cuda"):
        parts = scheme.quantize(weight.to(device), Curvature(hessian.to(device)), lambda: None)
        error = weight - (scheme.units(parts) * parts["scales"].repeat_interleave(128, 1)).cpu()
        errors.append(float(((error @ hessian) * error).sum()))
        assert scheme.tensors(parts)["codes"].shape == (4, 16 * scheme.layout.tile_words)  # type: ignore[attr-defined]
    assert errors[1] == pytest.approx(errors[0], rel=0.06)  # 64 tiles: one that comes out otherwise moves the others


@GPU
def test_torch_finds_the_same_on_a_gpu() -> None:
    targets, table = problem(32, 12)
    feedback = torch.triu(torch.full((16, 16), 0.1), 1)
    found = search_torch(targets.cuda(), feedback.cuda(), table.cuda(), 2).cpu()
    assert int((found == search_torch(targets, feedback, table, 2)).all(1).sum()) >= 30


def test_without_cupy_torch_does_it_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for cached in (cupy_kernels.cupy_module, cupy_kernels.warn):
        cached.cache_clear()
    with pytest.warns(UserWarning, match=r"cupy cannot be imported .*: install the cupy wheel .* many times slower"):
        assert not viterbi_cuda.usable(torch.device("cuda"), torch.zeros(1 << 12), 2)
    cupy_kernels.cupy_module.cache_clear()


def test_every_tier_fits_a_server_gpu() -> None:
    """227 KiB of shared memory for a block on Hopper, 163 on A100; registers hold 128 states a thread."""
    for bits in (2, 3, 4):
        assert viterbi_cuda.shared_bytes(16, bits, recent=False) <= 163 << 10
        assert viterbi_cuda.shared_bytes(16, bits, recent=True) <= 227 << 10
        assert (1 << 16) // viterbi_cuda.threads_of(16) == 128
        assert (128 >> bits) * bits <= 32 * viterbi_cuda.words_of(16, bits)

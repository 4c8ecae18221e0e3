"""The kernels on a GPU: launches, graphs, races, and whether kernels that overlap see each other's results."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import TIERS, TRELLISES, linear, relative_error
from quantgate_kernels import oracle
from quantgate_kernels.cuda import dequantize
from quantgate_kernels.ops import linear as ops

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] < 9, reason="needs a Hopper GPU or newer"
)


def prepared(name: str, rows: int, inputs: int, rotated: bool = True) -> tuple[ops.Prepared, torch.Tensor]:
    """A random Linear on the GPU, and its weight in float64 as the oracle has it, there too."""
    stored, tier, tables = linear(name, rows, inputs, rotated)
    return ops.prepare(stored, tier, tables, "cuda"), oracle.weight(stored, tier, tables).cuda()


def inputs_of(tokens: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(tokens)).to(dtype).cuda()


def decoded(x: torch.Tensor, weight: ops.Prepared, overlap: bool = True) -> torch.Tensor:
    """Float32 results in a tensor that was full of NaN."""
    out = torch.full((len(x), weight.rows), torch.nan, device="cuda")
    tensors = weight.codes, weight.scales, weight.table, weight.signs, weight.code_bits
    ops.decode(x, *tensors, out, overlap)
    return out


@pytest.mark.parametrize("name", TIERS)
@pytest.mark.parametrize(("rows", "inputs"), [(1024, 2048), (200, 576), (53, 192), (2000, 8192)])
def test_results_are_the_oracles_to_the_last_row(name: str, rows: int, inputs: int) -> None:
    check(name, rows, inputs)


@pytest.mark.parametrize("name", TRELLISES)
def test_so_are_those_of_a_trellis(name: str) -> None:
    check(name, 1040, 1024)
    check(name, 208, 576)


def check(name: str, rows: int, inputs: int) -> None:
    """Few to many tokens: right, and the same bits twice."""
    weight, truth = prepared(name, rows, inputs)
    for tokens in (1, 2, 4, 5, 8, 16, 33, 64, 65):
        x = inputs_of(tokens, inputs)
        expected = (x.double() @ truth.T).cpu()
        found = decoded(x, weight)
        assert relative_error(found, expected) < (1e-4 if tokens < 9 else 4e-4), tokens
        assert torch.equal(found, decoded(x, weight)), tokens
        assert torch.equal(found, decoded(x, weight, overlap=False)), tokens
        assert relative_error(ops.apply(x, weight), expected) < 3e-3, tokens


@pytest.mark.parametrize("name", [*TIERS, "trellis2", "trellis2-l12", "trellis2-sums"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_many_tokens_and_few_agree(name: str, dtype: torch.dtype) -> None:
    for rows, inputs in ((512, 1024), (208, 576)):
        weight, truth = prepared(name, rows, inputs)
        x = inputs_of(ops.MOST_DECODED + 45, inputs, dtype)
        x[3] *= 1000
        x[4] /= 1000
        expected = (x.double() @ truth.T).cpu()
        for tokens in (1, ops.MOST_DECODED, len(x)):
            found = ops.apply(x[:tokens], weight)
            assert found.dtype == dtype
            for token in {0, min(3, tokens - 1), min(4, tokens - 1), tokens - 1}:
                wanted = 3e-3 if dtype is torch.bfloat16 else 1e-3
                assert relative_error(found[token], expected[token]) < wanted, (tokens, token)


def test_the_weight_is_dequantized_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, truth = prepared("vq2", 200, 576, rotated=False)
    monkeypatch.setattr(dequantize, "WEIGHTS_AT_ONCE", 576 * 70)
    monkeypatch.setattr(dequantize, "TOKENS_AT_ONCE", 100)
    x = inputs_of(300, 576, torch.float16)
    out = torch.full((300, 200), torch.nan, device="cuda", dtype=torch.float16)
    dequantize.linear(x, weight.codes, weight.scales, weight.table, None, weight.code_bits, out, 100)
    assert relative_error(out, (x.double() @ truth.T).cpu()) < 5e-4


def test_no_tokens_and_more_dimensions() -> None:
    weight, truth = prepared("vq2", 64, 256)
    assert ops.apply(inputs_of(0, 256), weight).shape == (0, 64)
    x = inputs_of(6, 256).view(2, 3, 256)
    found = ops.apply(x.transpose(0, 1), weight)
    assert found.shape == (3, 2, 64)
    assert relative_error(found, (x.transpose(0, 1).double() @ truth.T).cpu()) < 3e-3


def test_a_row_that_begins_between_16_bytes_is_read_all_the_same() -> None:
    weight, truth = prepared("vq2", 64, 256)
    x = inputs_of(1, 264)[:, 4:260]
    assert x.is_contiguous() and x.data_ptr() % 16
    assert relative_error(ops.apply(x, weight), (x.double() @ truth.T).cpu()) < 3e-3


@pytest.mark.parametrize("tokens", [1, 6])
def test_kernels_that_overlap_see_what_the_one_before_wrote(tokens: int) -> None:
    """A chain in which each result is the next input, in memory that was another tensor's a moment ago."""
    weights = [prepared(name, 2048, 2048)[0] for name in ("vq2", "vq1", "vq3", "vq2")] * 12
    x = inputs_of(tokens, 2048)

    def chain(overlap: bool, x: torch.Tensor) -> torch.Tensor:
        for weight in weights:
            out = torch.empty(tokens, 2048, device="cuda", dtype=torch.bfloat16)
            tensors = weight.codes, weight.scales, weight.table, weight.signs, weight.code_bits
            ops.decode(x, *tensors, out, overlap)
            x = out
        return x

    apart = chain(False, x)
    assert bool(apart.isfinite().all()) and float(apart.abs().max()) > 0
    graph = torch.cuda.CUDAGraph()
    static = x.clone()
    with torch.cuda.graph(graph):
        captured = chain(True, static)
    for _ in range(20):
        assert torch.equal(chain(True, x), apart)
        captured.fill_(torch.nan)
        graph.replay()
        assert torch.equal(captured, apart)
    static.copy_(x * 2)
    graph.replay()
    assert torch.equal(captured, chain(False, x * 2))


def test_torch_compile_takes_the_op_as_one_node() -> None:
    weight, truth = prepared("vq2", 128, 256)
    compiled = torch.compile(lambda x: ops.apply(x * 2, weight) + 1, fullgraph=True)
    x = inputs_of(5, 256)
    assert relative_error(compiled(x), (x.double() * 2 @ truth.T + 1).cpu()) < 5e-3
    tensors = (weight.codes, weight.scales, weight.table, weight.signs)
    arguments = (x, *tensors, weight.rows, weight.code_bits)
    torch.library.opcheck(
        torch.ops.quantgate.vq_linear.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


def test_a_tier_without_a_kernel_is_named() -> None:
    with pytest.raises(ValueError, match="aqlm"):
        ops.prepare({}, {"format": "aqlm"}, {}, "cuda")

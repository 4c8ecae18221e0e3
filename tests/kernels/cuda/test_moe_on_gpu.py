"""Experts on a GPU: launches, graphs, races among blocks, and whether the result is the oracle's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_cases import TIERS, relative_error
from moe_cases import Layer, expected, layer, routing
from quantgate_kernels.cuda import moe
from quantgate_kernels.ops import moe as ops

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] < 9, reason="needs a Hopper GPU or newer"
)
MIXED = [("vq2", "vq1", "vq3"), ("vq1", "vq1.5", "vq2"), ("vq3", "vq2", "vq1.5"), ("vq1.5", "vq3", "vq1")]


def on_gpu(of: Layer) -> ops.PreparedMoE:
    return ops.prepare(of.experts, of.tiers, of.tables, "cuda")


def inputs_of(tokens: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(tokens)).to(dtype)


def floats(
    x: torch.Tensor,
    router: torch.Tensor,
    ids: torch.Tensor,
    prepared: ops.PreparedMoE,
    expert_map: torch.Tensor | None = None,
    tuning: moe.Tuning = moe.DEFAULT,
    overlap: bool = True,
) -> torch.Tensor:
    """Float32 results in a tensor that was full of NaN."""
    out = torch.full(x.shape, torch.nan, device="cuda")
    mapped = None if expert_map is None else expert_map.cuda()
    moe.run(prepared.shape, prepared.weights, x.cuda(), router.cuda(), ids.cuda(), mapped, out, tuning, overlap)
    return out


@pytest.mark.parametrize(("inputs", "middle"), [(1024, 768), (576, 192), (160, 1056)])
def test_mixed_tiers_at_any_number_of_tokens_in_any_division_of_work(inputs: int, middle: int) -> None:
    names = MIXED if inputs % 64 == 0 and middle % 64 == 0 else [("vq2",) * 3] * 4  # 32 inputs: whole words at 2 bits
    of = layer(names * 3, inputs, middle)
    prepared = on_gpu(of)
    tunings = [
        moe.DEFAULT,
        moe.Tuning(warps=8, depth=12, side=2, split=True),
        moe.Tuning(one_launch=False, side=1, split=False),
        moe.Tuning(most_summed=0, split=True),
        moe.Tuning(most_summed=1000, split=False),
    ]
    for tokens in (1, 2, 9, 40, moe.MOST_TOKENS + 3):
        x, (router, ids) = inputs_of(tokens, inputs), routing(tokens, 12, 4)
        found = floats(x, router, ids, prepared)
        checked = slice(0, 12) if tokens > 40 else slice(None)
        oracle = expected(of, x[checked], router[checked], ids[checked])
        assert relative_error(found[checked], oracle) < 1e-4, tokens
        for tuning in tunings:
            for overlap in (True, False):
                again = floats(x, router, ids.to(torch.int64), prepared, tuning=tuning, overlap=overlap)
                assert torch.equal(found, again), (tokens, tuning, overlap)


@pytest.mark.parametrize("name", TIERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_tier_alone(name: str, dtype: torch.dtype) -> None:
    of = layer([(name,) * 3] * 4, 512, 384)
    x, (router, ids) = inputs_of(7, 512, dtype), routing(7, 4, 2)
    prepared = on_gpu(of)
    oracle = expected(of, x, router, ids)
    assert relative_error(floats(x, router, ids, prepared), oracle) < 1e-4
    found = ops.apply(x.cuda(), router.cuda(), ids.cuda(), prepared)
    assert found.dtype == dtype
    assert relative_error(found, oracle) < 3e-3


def test_experts_of_other_ranks_count_nothing_and_no_tokens_give_none() -> None:
    of = layer([MIXED[0], MIXED[1]], 256, 256)
    prepared = on_gpu(of)
    expert_map = torch.tensor([-1, 1, -1, 0], dtype=torch.int32)
    x, router = inputs_of(4, 256), torch.rand(4, 2) + 0.1
    ids = torch.tensor([[0, 1], [3, 2], [0, 2], [1, -1]])
    for tuning in (moe.DEFAULT, replace(moe.DEFAULT, most_summed=0)):
        found = floats(x, router, ids, prepared, expert_map, tuning)
        assert (found[2] == 0).all()
        assert relative_error(found, expected(of, x, router, ids.clamp(min=0), expert_map)) < 1e-4
        assert (floats(x, router, ids * 0, prepared, expert_map, tuning) == 0).all()
    none = ops.apply(x[:0].cuda(), router[:0].cuda(), ids[:0].cuda(), prepared, expert_map.cuda())
    assert none.shape == (0, 256)


@pytest.mark.parametrize("tokens", [1, 5])
def test_layers_that_overlap_see_what_the_one_before_wrote(tokens: int) -> None:
    """A chain in which each result is the next input, in memory that was another tensor's a moment ago."""
    layers = [on_gpu(layer([MIXED[(n + i) % 4] for i in range(8)], 1024, 512)) for n in range(2)] * 2
    router, ids = (each.cuda() for each in routing(tokens, 8, 3))
    router = router * 11  # so that values keep their size

    def chain(x: torch.Tensor, tuning: moe.Tuning, overlap: bool) -> torch.Tensor:
        for each in layers:
            out = torch.empty_like(x)
            moe.run(each.shape, each.weights, x, router, ids, None, out, tuning, overlap)
            x = out
        return x

    x = inputs_of(tokens, 1024).cuda()
    apart = chain(x, moe.Tuning(one_launch=False, most_summed=0), False)
    assert bool(apart.isfinite().all()) and float(apart.abs().max()) > 0
    graph, static = torch.cuda.CUDAGraph(), x.clone()
    chain(x, moe.DEFAULT, True)
    with torch.cuda.graph(graph):
        captured = chain(static, moe.DEFAULT, True)
    for _ in range(20):
        assert torch.equal(chain(x, moe.DEFAULT, True).view(torch.int16), apart.view(torch.int16))
        captured.fill_(torch.nan)
        graph.replay()
        assert torch.equal(captured.view(torch.int16), apart.view(torch.int16))


def test_a_graph_follows_other_experts() -> None:
    of = layer(MIXED, 256, 128)
    prepared = on_gpu(of)
    x, (router, ids) = inputs_of(3, 256), routing(3, 4, 2)
    static = x.cuda(), router.cuda(), ids.cuda()
    ops.apply(*static, prepared)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.apply(*static, prepared)
    for seed in range(4):
        router, ids = routing(3, 4, 2, seed)
        static[1].copy_(router)
        static[2].copy_(ids)
        graph.replay()
        assert relative_error(captured, expected(of, x, router, ids)) < 3e-3


def test_torch_compile_takes_the_op_as_one_node() -> None:
    of = layer(MIXED, 256, 128)
    prepared = on_gpu(of)
    x, (router, ids) = inputs_of(3, 256), routing(3, 4, 2)
    given = x.cuda(), router.cuda(), ids.cuda()
    compiled = torch.compile(lambda a, b, c: ops.apply(a * 2, b, c, prepared) + 1, fullgraph=True)
    assert relative_error(compiled(*given), expected(of, x * 2, router, ids) + 1) < 5e-3

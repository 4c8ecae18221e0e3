"""The kernels of experts, run on a CPU thread by thread, against the oracle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_fibers import AVAILABLE
from kernel_cases import relative_error
from moe_cases import expected, layer, on_fibers, routing
from quantgate_kernels.cuda import moe
from quantgate_kernels.ops.moe import ordered

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not AVAILABLE, reason="needs g++ and a CPU with F16C")]
SMALL = moe.Tuning(warps=4, side=2)
CPU = torch.device("cpu")
MIXED = [("vq2", "vq1", "vq3"), ("vq1", "vq1.5", "vq2"), ("vq3", "vq2", "vq1.5"), ("vq1.5", "vq3", "vq1")]


def inputs_of(tokens: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return (torch.randn(tokens, inputs, generator=generator) * 3).to(dtype)


@pytest.mark.parametrize("pieces", [1, 8])
def test_mixed_tiers_are_what_the_oracle_says_however_work_is_dealt_out(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moe, "PIECES_OF_PART", pieces)  # sums of two and three parts, or of one
    of = layer(MIXED, 256, 384)
    x, (router, ids) = inputs_of(3, 256), routing(3, 4, 2)
    prepared = ordered(of.experts, of.tiers, of.tables, CPU)
    oracle = expected(of, x, router, ids)
    found = [
        on_fibers(prepared, x, router, ids, tuning=tuning, processors=blocks)
        for tuning, blocks in (
            (SMALL, 1),
            (replace(SMALL, warps=2, side=4, most_summed=0), 1),
            (replace(SMALL, one_launch=False, side=8, depth=30), 3),
            (replace(SMALL, one_launch=False, side=1, most_summed=0), 3),
            (replace(SMALL, split=False), 1),
        )
    ]
    assert relative_error(found[0], oracle) < 1e-4
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("name", ["vq1", "vq1.5", "vq2", "vq3"])
def test_every_tier_alone_and_an_expert_with_more_tokens_than_a_slot(name: str) -> None:
    of = layer([(name,) * 3] * 3, 256, 128)
    x, router, ids = inputs_of(6, 256), torch.rand(6, 2) + 0.1, torch.tensor([[0, 2]] * 6)  # expert 1 has none
    prepared = ordered(of.experts, of.tiers, of.tables, CPU)
    found = on_fibers(prepared, x, router, ids, tuning=replace(SMALL, split=True))
    assert relative_error(found, expected(of, x, router, ids)) < 1e-4
    assert torch.equal(found, on_fibers(prepared, x, router, ids, tuning=replace(SMALL, split=False)))


@pytest.mark.parametrize(
    ("inputs", "middle", "names"),
    [(192, 320, ("vq2", "vq3", "vq1")), (160, 128, ("vq2", "vq2", "vq3")), (384, 96, ("vq1", "vq1.5", "vq2"))],
)
def test_groups_of_64_and_32_and_rows_that_fill_no_piece(inputs: int, middle: int, names: tuple[str, str, str]) -> None:
    of = layer([names, names], inputs, middle)
    x, (router, ids) = inputs_of(2, inputs, torch.float16), routing(2, 2, 1)
    prepared = ordered(of.experts, of.tiers, of.tables, CPU)
    for tiles in (1, 4):
        tuning = replace(SMALL, side=tiles)
        found = on_fibers(prepared, x, router, ids, tuning=tuning)
        assert relative_error(found, expected(of, x, router, ids)) < 1e-4


@pytest.mark.parametrize("most_summed", [0, 64])
def test_experts_of_other_ranks_count_nothing(most_summed: int) -> None:
    of = layer([MIXED[0], MIXED[1]], 128, 128)
    expert_map = torch.tensor([-1, 1, -1, 0], dtype=torch.int32)
    x, router = inputs_of(4, 128), torch.rand(4, 2) + 0.1
    ids = torch.tensor([[0, 1], [3, 2], [0, 2], [1, 3]])
    prepared = ordered(of.experts, of.tiers, of.tables, CPU)
    tuning = replace(SMALL, most_summed=most_summed)
    found = on_fibers(prepared, x, router, ids, expert_map, tuning=tuning)
    oracle = expected(of, x, router, ids, expert_map)
    assert (found[2] == 0).all()
    assert relative_error(found, oracle) < 1e-4
    nowhere = on_fibers(prepared, x, router, ids * 0, expert_map, tuning=tuning)
    assert (nowhere == 0).all()


def test_without_rotation_in_16_bits_and_with_odd_values() -> None:
    of = layer([MIXED[0], MIXED[3]], 128, 256, rotated=False)
    x, (router, ids) = inputs_of(3, 128), routing(3, 2, 2)
    x[1] = 0
    x[2, 5] = torch.inf
    prepared = ordered(of.experts, of.tiers, of.tables, CPU)
    found = on_fibers(prepared, x, router, ids, tuning=SMALL, out_dtype=torch.bfloat16)
    oracle = expected(of, x[:1], router[:1], ids[:1])
    assert relative_error(found[:1], oracle) < 4e-3  # bfloat16
    assert (found[1] == 0).all()
    assert found[2].isnan().all()


def test_many_experts_and_pairs() -> None:
    """More experts than the plan has threads, and slots of any fill."""
    of = layer([("vq2", "vq2", "vq2")] * 3, 128, 128)
    copies = 300
    of.experts, of.tiers = of.experts * 100, of.tiers * 100
    x, router = inputs_of(40, 128), torch.rand(40, 4) + 0.1
    ids = torch.randint(0, copies, (40, 4), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    ids[:9, 0] = 77
    ids[:35, 1] = 42
    prepared = ordered(of.experts, of.tiers, of.tables, CPU)
    found = on_fibers(prepared, x, router, ids, tuning=SMALL)
    assert relative_error(found, expected(of, x, router, ids)) < 1e-4


def test_what_no_kernel_knows_is_refused() -> None:
    of = layer([MIXED[0], MIXED[1]], 128, 128)
    given = (of.tables, CPU)
    with pytest.raises(ValueError, match="format 'trellis'"):
        ordered(of.experts, [of.tiers[0], of.tiers[1] | {"up_proj": {"format": "trellis"}}], *given)
    plain = of.tiers[1]["up_proj"] | {"rotation": None}
    with pytest.raises(ValueError, match="gate_proj and up_proj of some experts are rotated"):
        ordered(of.experts, [of.tiers[0], of.tiers[1] | {"up_proj": plain}], *given)
    with pytest.raises(ValueError, match=r"expert 1, up_proj has codes of \[64, 128\] weights, not \[128, 128\]"):
        half = {part: tensor[:64] for part, tensor in of.experts[1]["up_proj"].items()}
        ordered([of.experts[0], of.experts[1] | {"up_proj": half}], of.tiers, *given)
    with pytest.raises(ValueError, match="signs of 128 inputs are missing"):
        ordered(of.experts, of.tiers, {k: v for k, v in of.tables.items() if "signs" not in k}, CPU)

"""A shard is a slice of what is stored, and means that slice of the weight; what would not is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quantgate_kernels import oracle
from quantgate_kernels.formats import rotation, vq
from quantgate_kernels.settings import FormatError
from quantgate_kernels.sharding import require_shards, units

TURN = {"kind": "signs+hadamard", "seed": 7}
LAYOUTS = {"vq1": (8, 256), "vq1.5": (8, 4096), "vq2": (4, 256), "vq3": (4, 4096)}
VQ: dict[str, Any] = {"format": "vq", "rotation": TURN}
TRELLIS: dict[str, Any] = {"format": "trellis", "rotation": TURN}
INT: dict[str, Any] = {"format": "pack-quantized", "group_size": 32, "rotation": None}
FP8: dict[str, Any] = {"format": "fp8-block", "rotation": None}
AQLM: dict[str, Any] = {"format": "aqlm", "rotation": None, "out_group_size": 1, "in_group_size": 8}


@pytest.mark.parametrize("tier", LAYOUTS)
@pytest.mark.parametrize(("columns", "ranks"), [(512, 2), (512, 4), (384, 3), (192, 3)])
def test_a_shard_of_whole_groups_is_a_slice(tier: str, columns: int, ranks: int) -> None:
    noise = torch.Generator().manual_seed(columns)
    layout = vq.VQLayout(*LAYOUTS[tier])
    codes = torch.randint(layout.entries, (6, columns // layout.dimensions), generator=noise)
    signs, table = rotation.signs_of(columns, 7), torch.randint(-9, 9, LAYOUTS[tier][::-1], dtype=torch.int8)
    scales = torch.rand(6, columns // rotation.block_of(columns), generator=noise) + 0.1
    parts, entry = vq.encode(codes, scales, layout), VQ | {"table": "t"}
    whole = oracle.weight(parts, entry, {"t": table, f"signs.{columns}": signs})
    require_shards("m.down_proj", (6, columns), VQ, ranks)
    for rank in range(ranks):
        mine = {name: tensor.chunk(ranks, 1)[rank] for name, tensor in parts.items()}
        own = {"t": table, f"signs.{columns // ranks}": signs.chunk(ranks)[rank]}
        torch.testing.assert_close(oracle.weight(mine, entry, own), whole.chunk(ranks, 1)[rank])


def test_what_stays_together() -> None:
    assert [units(tier, 512) for tier in (VQ, TRELLIS, INT, FP8, AQLM)] == [
        (1, 128), (16, 128), (1, 32), (128, 128), (1, 8),
    ]  # fmt: skip
    assert units(VQ, 192) == (1, 64) and units(INT | {"rotation": TURN}, 512) == (1, 128)


def test_mixed_experts_shard_each_by_its_tier() -> None:
    for expert, tier in enumerate((VQ, TRELLIS, INT, FP8)):
        require_shards(f"m.experts.{expert}.down_proj", (6144, 2048), tier, 8)
        require_shards(f"m.experts.{expert}.gate_proj", (2048, 6144), tier, 8)
    # 1,536 inputs over 8 ranks are 192 each: 6 groups of 32, and a group and a half of 128.
    require_shards("m.experts.2.down_proj", (6144, 1536), INT, 8)
    with pytest.raises(FormatError, match=r"m\.experts\.0\.down_proj has 1536 inputs, .* over 8 ranks \(vq keeps 128"):
        require_shards("m.experts.0.down_proj", (6144, 1536), VQ, 8)
    with pytest.raises(FormatError, match=r"m\.up_proj has 72 outputs, .* over 3 ranks \(trellis keeps 16"):
        require_shards("m.up_proj", (72, 512), TRELLIS, 3)


def test_a_few_heads_are_shared_by_ranks_and_what_is_whole_is_not_split() -> None:
    require_shards("m.k_proj", (2 * 64, 512), TRELLIS, 4, heads=2)
    with pytest.raises(FormatError, match=r"m\.k_proj has 192 outputs, .* over 3 ranks"):
        require_shards("m.k_proj", (192, 512), VQ, 4, heads=3)
    require_shards("m.kv_a_proj_with_mqa", (576, 512), TRELLIS, 8)
    require_shards("m.q_proj", (7, 512), VQ, 1)

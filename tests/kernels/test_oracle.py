"""The oracle equals the readers and what quantizers turn codes into, though it shares no code with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels import oracle
from quantgate_kernels.formats import aqlm, fp8_block, pack_quantized, rotation, trellis, vq
from quantgate_kernels.formats.linears import read_linear
from quantgate_kernels.validate import validate
from safetensors.torch import load_file

from quantizers.dequantize import dequantize

Case = tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, torch.Tensor]]
TURN = {"kind": "signs+hadamard", "seed": 7}


def scales(rows: int, columns: int, group: int, noise: torch.Generator) -> torch.Tensor:
    return torch.rand(rows, columns // group, generator=noise) + 0.1


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Random codes of any format, with shapes that it stores."""
    noise = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    kind = draw(st.sampled_from(["vq", "trellis", "ints", "fp8", "aqlm"]))
    rows, columns = draw(st.integers(1, 40)), draw(st.sampled_from([64, 128, 192, 256, 320, 384]))
    group = rotation.block_of(columns)
    turned = draw(st.booleans())
    tables = {f"signs.{columns}": rotation.signs_of(columns, 7)} if turned else {}
    tier: dict[str, Any] = {"rotation": TURN if turned else None}
    if kind == "vq":
        layout = vq.VQLayout(*draw(st.sampled_from([(8, 256), (8, 4096), (4, 256), (4, 4096), (2, 16)])))
        shape = (rows, columns // layout.dimensions)
        codes = torch.randint(layout.entries, shape, generator=noise)
        table = torch.randint(-127, 128, (layout.entries, layout.dimensions), dtype=torch.int8, generator=noise)
        parts = vq.encode(codes, scales(rows, columns, group, noise), layout)
        return parts, tier | {"format": "vq", "table": "t"}, tables | {"t": table}
    if kind == "trellis":
        bits = draw(st.integers(1, 4))
        wide = draw(st.integers(2 * bits, 16))
        high = draw(st.integers(1, 3))
        symbols = torch.randint(1 << bits, (high, columns // 16, 256), generator=noise)
        entry = draw(st.sampled_from([torch.int8, torch.int16]))  # looked up, or byte sums
        table = torch.randint(-127, 128, (1 << wide,), dtype=entry, generator=noise)
        layout_ = trellis.TrellisLayout(bits, wide)
        parts = trellis.encode(symbols, scales(high * 16, columns, group, noise), layout_)
        return (
            parts,
            tier | {"format": "trellis", "bits": bits, "state_bits": wide, "table": "t"},
            tables | {"t": table},
        )
    if kind == "ints":
        bits = draw(st.sampled_from(pack_quantized.WIDTHS))
        low, high = pack_quantized.limits(bits)
        codes = torch.randint(low, high + 1, (rows, columns), generator=noise)
        dtype = draw(st.sampled_from([torch.float16, torch.bfloat16]))
        parts = pack_quantized.encode(codes, scales(rows, columns, draw(st.sampled_from([32, 64])), noise), bits, dtype)
        return parts, tier | {"format": "pack-quantized", "bits": bits}, tables
    if kind == "fp8":
        rows, columns = draw(st.integers(1, 300)), draw(st.integers(1, 300))
        weight, found = fp8_block.encode(torch.randn(rows, columns, generator=noise))
        return {"weight": weight, "weight_scale_inv": found}, {"format": "fp8-block", "rotation": None}, {}
    layout__ = aqlm.AQLMLayout(draw(st.integers(1, 3)), draw(st.integers(2, 10)), 8, draw(st.sampled_from([1, 2])))
    codes = torch.randint(layout__.entries, (rows, columns // 8, layout__.books), generator=noise)
    books = torch.randn(layout__.books, layout__.entries, layout__.out_group, 8, generator=noise)
    parts = aqlm.encode(codes, books, torch.rand(rows, generator=noise) + 0.1)
    return parts, {"format": "aqlm", "rotation": None, **layout__.settings()}, {}


@pytest.mark.slow
@settings(max_examples=50)
@given(cases())
def test_it_equals_the_readers(case: Case) -> None:
    weight, read = oracle.weight(*case), read_linear(*case)
    assert weight.dtype == torch.float64
    torch.testing.assert_close(weight, read.double(), rtol=1e-5, atol=1e-5 * float(weight.abs().max()))
    inputs = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(1))
    assert torch.equal(oracle.linear(inputs, *case), inputs.double() @ weight.T)
    assert oracle.linear(inputs[:0], *case).shape == (0, len(weight))


def test_rotation_of_the_inputs_does_what_undoing_it_in_the_weight_does() -> None:
    rows, inputs = torch.randn(5, 192, dtype=torch.float64), torch.randn(3, 192, dtype=torch.float64)
    signs = rotation.signs_of(192, 7)
    served = rotation.rotate(inputs, signs) @ rows.T
    torch.testing.assert_close(inputs @ oracle.unrotated(rows, signs).T, served, rtol=1e-6, atol=1e-6)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 'v' is unknown"):
        oracle.weight({}, {"format": "v", "rotation": None}, {})


@pytest.mark.slow
def test_it_equals_what_dequantize_writes(mixed: Path, tmp_path: Path) -> None:
    """Five tiers: bf16 of the same numbers, but where float32 and float64 fall on two sides of a border."""
    contents = validate(mixed)
    back: dict[str, torch.Tensor] = {}
    for file in dequantize(mixed, tmp_path / "bf16").glob("*.safetensors"):
        back |= load_file(file)
    for module, shape in contents.shapes.items():
        tier = contents.settings.tier_of(module)
        parts = {n.rpartition(".")[2]: h.read() for n, h in contents.headers.items() if n.rpartition(".")[0] == module}
        weight = oracle.weight(parts, tier, contents.tables)
        assert weight.shape == shape
        stored = back[f"{module}.weight"]
        assert float((weight.to(torch.bfloat16) == stored).float().mean()) > 0.99
        torch.testing.assert_close(weight, stored.double(), rtol=2**-8, atol=1e-6)

"""Which parts go to which kernel, in what launches; the kernels themselves are tested on a GPU and on CPU fibers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from coded_folders import TIERS, save_coded
from quantgate_kernels.formats.linears import read_linear
from quantgate_kernels.ops import linear, moe
from quantgate_kernels.vllm_plugin import kernels
from quantgate_kernels.vllm_plugin.checkpoints import read_contents
from quantgate_kernels.vllm_plugin.kernels import Coded, Plain
from quantgate_kernels.vllm_plugin.parts import Part, one_part

NAMES = ("vq2", "vq2", "vq3", "int4", "plain", "trellis2", "vq2")


class Gpu:
    def __init__(self, capability: int) -> None:
        self.capability = capability

    def is_cuda(self) -> bool:
        return self.capability > 0

    def has_device_capability(self, wanted: int) -> bool:
        return self.capability >= wanted


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = pytest.importorskip("vllm.platforms")
    monkeypatch.setattr(vllm, "current_platform", Gpu(90))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_coded(tmp_path, {f"model.layers.0.{n}": (tier, 32, 256) for n, tier in enumerate(NAMES)})


def parts_of(folder: Path, inputs: int = 256, rank: int = 0) -> tuple[list[Part], dict[str, torch.Tensor]]:
    contents = read_contents(folder, "quantgate")
    parts = [
        one_part(contents, f"model.layers.0.{n}", [(32, 32)], inputs, rank, 256 // inputs) for n in range(len(NAMES))
    ]
    for part in parts:
        for name, header in part.headers.items():
            part.load(name, header.read(), torch.device("cpu"))
    return parts, contents.tables


def read_at_once(stored: Mapping[str, torch.Tensor], tier: Any, tables: Any, device: Any) -> torch.Tensor:
    """In the place of `linear.prepare`: what it is given, as a weight."""
    return read_linear(stored, tier, tables)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_neighbours_of_one_tier_are_one_launch(
    folder: Path, gpu: None, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setattr(linear, "prepare", read_at_once)
    monkeypatch.setattr(linear, "apply", torch.nn.functional.linear)
    parts, tables = parts_of(folder, 128, rank)
    weights = [part.weight(tables, torch.float32) for part in parts]
    runs = kernels.prepare_linear(parts, tables, torch.bfloat16)
    assert [type(run) for run in runs] == [Coded, Coded, Plain, Plain, Coded, Coded]
    x = torch.randn(3, 128)
    found = torch.cat([run.apply(x.to(torch.bfloat16) if isinstance(run, Plain) else x) for run in runs], -1)
    torch.testing.assert_close(found.float(), x @ torch.cat(weights).T, rtol=0.02, atol=0.5)
    assert not any(part.tensors for part in parts)


@pytest.mark.slow
def test_what_no_kernel_knows(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [name for name, tier in TIERS.items() if kernels.has_linear(tier, torch.bfloat16)]
    assert known == ["vq2", "vq1", "vq3", "trellis2"]
    assert not kernels.has_linear(TIERS["vq2"], torch.float32)
    tables = {"codebooks.vq2": torch.zeros(256, 4), "codebooks.vq1": torch.zeros(256, 8)}
    plain = dict(TIERS["vq2"], rotation=None)

    def on_codes(*tiers: Any) -> bool:
        return kernels.has_experts(zip(("w1", "w3", "w2"), tiers, strict=True), tables, torch.bfloat16)

    vq2, vq1 = TIERS["vq2"], TIERS["vq1"]
    assert on_codes(vq2, vq2, vq1) and on_codes(vq2, vq2, plain)
    assert not on_codes(vq2, plain, vq2) and not on_codes(vq2, vq2, TIERS["int4"]) and not on_codes(vq2, vq2, None)
    monkeypatch.setattr("vllm.platforms.current_platform", Gpu(80))
    assert not kernels.has_linear(vq2, torch.bfloat16) and not on_codes(vq2, vq2, vq1)


def test_experts_go_to_the_kernel_with_the_signs_of_their_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moe, "prepare", moe.ordered)  # all but the compiling
    shapes = {"gate_proj": ("vq2", 256, 128), "up_proj": ("vq1", 256, 128), "down_proj": ("vq2", 128, 256)}
    names = {f"model.layers.0.mlp.experts.{e}.{name}": shape for e in (0, 1) for name, shape in shapes.items()}
    contents = read_contents(save_coded(tmp_path, names), "quantgate")
    parts = {}
    for (module, (_, rows, columns)), key in zip(
        names.items(), [(e, shard) for e in (0, 1) for shard in ("w1", "w3", "w2")], strict=True
    ):
        wanted, inputs = ((rows, rows), 128) if key[1] == "w2" else ((rows, 128), columns)
        part = parts[key] = one_part(contents, module, [wanted], inputs, 1, 2)
        for name, header in part.headers.items():
            part.load(name, header.read(), torch.device("cpu"))
    found = kernels.prepare_experts(parts, contents.tables)
    assert (found.shape.inputs, found.shape.middle, found.shape.experts) == (128, 128, 2)
    assert found.weights.signs_mid is not None and found.weights.signs_in is not None
    assert torch.equal(found.weights.signs_mid, contents.tables["signs.256"][128:])
    assert torch.equal(found.weights.signs_in, contents.tables["signs.128"])


def test_a_compiler_sees_one_node_a_launch(folder: Path) -> None:
    """As vLLM compiles a model: one graph, without a break."""
    seen: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return lambda *_: (torch.zeros(2, 96, dtype=torch.bfloat16),)

    prepared = linear.Prepared(
        codes=torch.zeros(4, dtype=torch.int32), scales=torch.zeros(4, dtype=torch.float16),
        table=torch.zeros(4, dtype=torch.int8), signs=None, rows=32, inputs=256, code_bits=8,
    )  # fmt: skip
    layer: Any = torch.nn.Module()
    layer.quantgate_runs = [Coded(prepared), Coded(prepared), Plain(torch.zeros(32, 256, dtype=torch.bfloat16))]

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([run.apply(x) for run in layer.quantgate_runs], dim=-1)

    compiled: Any = torch.compile(forward, fullgraph=True, backend=backend)
    assert compiled(torch.zeros(2, 256, dtype=torch.bfloat16)).shape == (2, 96)
    assert sum("vq_linear" in name for name in seen) == 2

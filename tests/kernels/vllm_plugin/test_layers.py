"""vLLM's own Linear layers with our method, for one rank and for each of two; experts as their loader is called."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from coded_folders import save_coded
from quantgate_kernels.formats.linears import read_linear
from quantgate_kernels.settings import FormatError
from quantgate_kernels.vllm_plugin.checkpoints import Checkpoint, named, read_contents
from quantgate_kernels.vllm_plugin.loading import register_experts, take_off

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow  # imports vLLM

ATTENTION, MLP = "model.layers.0.self_attn", "model.layers.0.mlp"
LINEARS = {
    f"{ATTENTION}.q_proj": ("vq2", 256, 128),
    f"{ATTENTION}.k_proj": ("int4", 128, 128),
    f"{ATTENTION}.v_proj": ("plain", 128, 128),
    f"{ATTENTION}.o_proj": ("trellis2", 128, 256),
    f"{MLP}.gate_proj": ("vq3", 256, 128),
    f"{MLP}.up_proj": ("vq3", 256, 128),
    f"{MLP}.down_proj": ("vq1", 128, 256),
    f"{MLP}.gate": ("plain", 8, 128),
}
EXPERTS = {
    f"{MLP}.experts.{expert}.{name}": (tier, *((128, 256) if name == "down_proj" else (256, 128)))
    for expert, tiers in enumerate([("vq2", "vq2", "fp8"), ("vq1", "vq1", "vq3"), ("int3", "plain", "int4-rotated")])
    for name, tier in zip(("gate_proj", "up_proj", "down_proj"), tiers, strict=True)
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_coded(tmp_path_factory.mktemp("layers") / "model", LINEARS | EXPERTS, {"num_hidden_layers": 1})


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Says which rank of how many the layers made from then on are of."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers import linear

    def become(rank: int, of: int) -> None:
        monkeypatch.setattr(linear, "get_tensor_model_parallel_rank", lambda: rank)
        monkeypatch.setattr(linear, "get_tensor_model_parallel_world_size", lambda: of)
        monkeypatch.setattr("vllm.model_executor.parameter.get_tensor_model_parallel_rank", lambda: rank)
        monkeypatch.setattr("vllm.model_executor.parameter.get_tensor_model_parallel_world_size", lambda: of)

    with set_current_vllm_config(VllmConfig()):
        yield become


def config_of(folder: Path) -> Any:
    from quantgate_kernels.vllm_plugin.config import QuantgateConfig

    config = QuantgateConfig.from_config({})
    config.maybe_update_config(str(folder))
    return config


def weights_of(folder: Path, module: str) -> torch.Tensor:
    """What `quantgate dequantize` makes of it."""
    contents = read_contents(folder, "quantgate")
    if module not in contents.shapes:
        return contents.headers[f"{module}.weight"].read()
    tensors = {
        name.rpartition(".")[2]: header.read()
        for name, header in contents.headers.items()
        if name.rpartition(".")[0] == module
    }
    return read_linear(tensors, contents.settings.tier_of(module), contents.tables).to(torch.bfloat16)


def fill(layer: Any, folder: Path, shards: dict[Any, str]) -> torch.Tensor:
    """Load the stored tensors as vLLM's models do; the weight that the layer then has."""
    for name, header in read_contents(folder, "quantgate").headers.items():
        module, _, part = name.rpartition(".")
        for shard in [shard for shard, stored in shards.items() if stored == module]:
            parameter = getattr(layer, part)
            arguments = (parameter, header.read()) if shard is None else (parameter, header.read(), shard)
            parameter.weight_loader(*arguments)
    kept: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        from vllm.model_executor.layers.linear import UnquantizedLinearMethod

        patch.setattr(
            UnquantizedLinearMethod, "process_weights_after_loading", lambda _, layer: kept.append(layer.weight.data)
        )
        layer.quant_method.process_weights_after_loading(layer)
    assert {name for name, _ in layer.named_parameters()} <= {"weight", "bias"}
    return kept[0]


def halves(weight: torch.Tensor, rank: int, of: int, dim: int = 0) -> torch.Tensor:
    return weight.chunk(of, dim)[rank]


@pytest.mark.parametrize(("rank", "of"), [(0, 1), (0, 2), (1, 2)])
def test_fused_layers_of_parts_in_other_formats(folder: Path, ranks: Any, rank: int, of: int) -> None:
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear

    ranks(rank, of)
    config = config_of(folder)
    common: dict[str, Any] = {"bias": False, "params_dtype": torch.bfloat16, "quant_config": config}
    qkv: Any = QKVParallelLinear(128, 64, 4, 2, prefix=f"{ATTENTION}.qkv_proj", **common)
    found = fill(qkv, folder, {letter: f"{ATTENTION}.{letter}_proj" for letter in "qkv"})
    parts = [halves(weights_of(folder, f"{ATTENTION}.{letter}_proj"), rank, of) for letter in "qkv"]
    assert torch.equal(found, torch.cat(parts))

    both: Any = MergedColumnParallelLinear(128, [256, 256], prefix=f"{MLP}.gate_up_proj", **common)
    found = fill(both, folder, {0: f"{MLP}.gate_proj", 1: f"{MLP}.up_proj"})
    parts = [halves(weights_of(folder, f"{MLP}.{name}_proj"), rank, of) for name in ("gate", "up")]
    assert torch.equal(found, torch.cat(parts))

    for module in (f"{ATTENTION}.o_proj", f"{MLP}.down_proj"):
        row: Any = RowParallelLinear(256, 128, prefix=module, **common)
        found = fill(row, folder, {None: module})
        expected = halves(weights_of(folder, module), rank, of, dim=1).to(torch.float32)
        torch.testing.assert_close(found.to(torch.float32), expected, rtol=2**-7, atol=1e-4)  # products of fewer rows


def test_what_is_stored_plainly_is_vllms_own(folder: Path, ranks: Any) -> None:
    from vllm.model_executor.layers.linear import ReplicatedLinear, UnquantizedLinearMethod

    ranks(0, 1)
    gate: Any = ReplicatedLinear(128, 8, bias=False, quant_config=config_of(folder), prefix=f"{MLP}.gate")
    assert type(gate.quant_method) is UnquantizedLinearMethod
    draft: Any = ReplicatedLinear(128, 8, quant_config=config_of(folder), prefix="model.layers.1.mlp.gate")
    assert type(draft.quant_method) is UnquantizedLinearMethod
    with pytest.raises(FormatError, match=r"nothing is stored of vLLM's model\.layers\.0\.mlp\.router"):
        ReplicatedLinear(128, 8, quant_config=config_of(folder), prefix=f"{MLP}.router")


def test_a_layer_that_does_not_split_names_its_linear(folder: Path, ranks: Any) -> None:
    from vllm.model_executor.layers.linear import RowParallelLinear

    ranks(0, 4)
    with pytest.raises(FormatError, match=r"down_proj: inputs 0 to 64 of 256 are wanted here, and vq keeps 128"):
        RowParallelLinear(256, 128, quant_config=config_of(folder), prefix=f"{MLP}.down_proj")


@pytest.mark.parametrize("copies", [0, 1])
@pytest.mark.parametrize(("rank", "of", "expert_parallel"), [(0, 1, False), (1, 2, False), (1, 2, True)])
def test_experts_in_mixed_tiers(folder: Path, rank: int, of: int, expert_parallel: bool, copies: int) -> None:
    from quantgate_kernels.vllm_plugin.moe import dequantized, expert_parts, parameters_of

    checkpoint = named(read_contents(folder, "quantgate"), [], {})
    names = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    stored = {(e, s): f"{MLP}.experts.{e}.{name}" for e, (s, name) in itertools.product(range(3), names.items())}
    everyone = list(range(3 + copies))
    mine = everyone[2:] if expert_parallel else everyone
    local = {number: mine.index(number) if number in mine else -1 for number in everyone}
    place, places = (0, 1) if expert_parallel else (rank, of)
    parts = expert_parts(checkpoint, stored, local, 3, place, places)
    layer = torch.nn.Module()
    parameters = parameters_of(checkpoint, stored)
    register_experts(layer, parts, parameters, lambda number: local[number])
    assert {name for name, _ in layer.named_parameters()} >= {"w13_codes", "w13_scales", "w2_weight_packed"}
    for (expert, shard), module in stored.items():
        for number in range(expert, len(everyone), 3):
            for name, header in checkpoint.contents.headers.items():
                if name.rpartition(".")[0] == module:
                    prefix = "w2_" if shard == "w2" else "w13_"
                    parameter: Any = getattr(layer, prefix + name.rpartition(".")[2])
                    arguments = {"shard_id": shard, "expert_id": number, "return_success": True}
                    taken = parameter.weight_loader(parameter, header.read(), name, **arguments)
                    assert taken is (local[number] >= 0)
    take_off(layer, parameters)
    assert not list(layer.named_parameters())
    inner = 256 // places
    w13, w2 = dequantized(parts, checkpoint.contents.tables, (len(mine), 160, inner), 2, torch.bfloat16)
    for number in mine:
        gate, down, up = (weights_of(folder, stored[number % 3, shard]) for shard in names)
        both = torch.cat([halves(gate, place, places), halves(up, place, places)])
        assert torch.equal(w13[local[number]][:, :128], both) and not w13[..., 128:].any()  # vLLM may pad
        expected = halves(down, place, places, dim=1).to(torch.float32)
        torch.testing.assert_close(w2[local[number]][:128].to(torch.float32), expected, rtol=2**-7, atol=1e-4)
        assert not w2[:, 128:].any()


def test_the_config_goes_to_other_processes(folder: Path) -> None:
    config = config_of(folder)
    again = pickle.loads(pickle.dumps(config))
    assert (again.folder, again.get_name(), repr(again)) == (str(folder), "quantgate", "QuantgateConfig(quantgate)")


def test_registered_twice_and_refused_by_number(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from quantgate_kernels.vllm_plugin import versions
    from quantgate_kernels.vllm_plugin.config import AQLMConfig, QuantgateConfig
    from quantgate_kernels.vllm_plugin.register import register
    from vllm.model_executor.layers import quantization

    register()
    register()
    assert quantization.get_quantization_config("quantgate") is QuantgateConfig
    assert quantization.get_quantization_config("aqlm") is AQLMConfig
    assert quantization.QUANTIZATION_METHODS.count("quantgate") == 1
    for number in ("0.26.0", "0.32.0+cpu", "0.33.1", "0.32.0rc1"):
        versions.require_version(number)
    for number in ("0.31.0", "1.26", "dev"):
        with pytest.raises(ValueError, match=rf"vLLM {number} is none that quantgate-kernels .* \(0\.26, 0\.32, 0\.33"):
            versions.require_version(number)
    monkeypatch.setattr(quantization, "register_quantization_config", SimpleNamespace)  # takes no argument
    register()
    assert "quantgate-kernels serves no codes with this vLLM" in caplog.text


def test_names_of_an_unmapped_checkpoint_are_its_own(folder: Path) -> None:
    checkpoint: Checkpoint = config_of(folder)._checkpoint or named(read_contents(folder, "quantgate"), [], {})
    assert checkpoint.stored(f"{ATTENTION}.qkv_proj", {}) == [f"{ATTENTION}.{letter}_proj" for letter in "qkv"]

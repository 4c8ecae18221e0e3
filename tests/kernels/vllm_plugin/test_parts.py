"""What a rank of a server keeps of a stored Linear: by the oracle, exactly its rows and inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from coded_folders import TIERS, save_coded
from quantgate_kernels import oracle, tables
from quantgate_kernels.formats import rotation
from quantgate_kernels.settings import FormatError
from quantgate_kernels.vllm_plugin.checkpoints import named, read_contents, require_split
from quantgate_kernels.vllm_plugin.parts import Part, one_part

ROWS, COLUMNS = 512, 512
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Linear of 512 x 512 in each tier, and one stored plainly."""
    linears = {f"model.layers.0.{tier}": (tier, ROWS, COLUMNS) for tier in [*TIERS, "plain"]}
    return save_coded(tmp_path_factory.mktemp("parts") / "model", linears, {"num_hidden_layers": 1})


def loaded(part: Part) -> Part:
    for name, header in part.headers.items():
        part.load(name, header.read(), CPU)
    part.require_sound()
    return part


def whole(folder: Path, module: str) -> torch.Tensor:
    contents = read_contents(folder, "quantgate")
    part = one_part(contents, module, [(ROWS, ROWS)], COLUMNS, 0, 1)
    if part.tier is None:
        return part.headers["weight"].read().to(torch.float64)
    return oracle.weight({name: h.read() for name, h in part.headers.items()}, part.tier, contents.tables)


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tier", [*TIERS, "plain"])
def test_shards_are_slices_of_the_whole(folder: Path, tier: str, default: torch.dtype) -> None:
    module, contents = f"model.layers.0.{tier}", read_contents(folder, "quantgate")
    expected = whole(folder, module)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)  # vLLM has the model's dtype as default when it loads
    try:
        for ranks in (1, 2, 4):
            for rank in range(ranks):
                rows, columns = (slice(rank * side // ranks, (rank + 1) * side // ranks) for side in (ROWS, COLUMNS))
                by_rows = loaded(one_part(contents, module, [(ROWS, ROWS // ranks)], COLUMNS, rank, ranks))
                by_inputs = loaded(one_part(contents, module, [(ROWS, ROWS)], COLUMNS // ranks, rank, ranks))
                for part, wanted in ((by_rows, expected[rows]), (by_inputs, expected[:, columns])):
                    found = part.weight(contents.tables, torch.float32)
                    assert found.shape == wanted.shape == part.local_shape
                    torch.testing.assert_close(found.to(torch.float64), wanted, rtol=1e-5, atol=1e-5)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("tier", [*TIERS, "plain"])
def test_parts_of_one_stored_matrix_and_of_heads_that_ranks_share(folder: Path, tier: str) -> None:
    module, contents = f"model.layers.0.{tier}", read_contents(folder, "quantgate")
    expected, wanted = whole(folder, module), [(256, 128), (128, 128), (128, 128)]  # q of two ranks, k and v of all
    for rank in (0, 1):
        rows = torch.cat([expected[rank * 128 : rank * 128 + 128], expected[256:384], expected[384:]])
        part = loaded(one_part(contents, module, wanted, COLUMNS, rank, 2))
        found = part.weight(contents.tables, torch.float32).to(torch.float64)
        torch.testing.assert_close(found, rows, rtol=1e-5, atol=1e-5)
    shared = [one_part(contents, module, [(ROWS, 256)], COLUMNS, rank, 4).rows for rank in range(4)]
    assert shared == [((0, 256),), ((0, 256),), ((256, 512),), ((256, 512),)]


@pytest.mark.parametrize("tier", ["vq2", "trellis2", "int4-rotated"])
def test_reading_a_few_rows_at_a_time_changes_nothing(folder: Path, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = read_contents(folder, "quantgate")
    part = loaded(one_part(contents, f"model.layers.0.{tier}", [(ROWS, ROWS)], COLUMNS, 0, 1))
    at_once = part.weight(contents.tables, torch.bfloat16)
    monkeypatch.setattr("quantgate_kernels.vllm_plugin.parts.AT_ONCE", 1)
    assert torch.equal(part.weight(contents.tables, torch.bfloat16), at_once)


@pytest.mark.parametrize(
    ("tier", "outputs", "inputs", "kept"),
    [("vq2", ROWS, 64, 128), ("trellis2", 8, COLUMNS, 16), ("fp8", 64, COLUMNS, 128), ("int4", ROWS, 32, 64)],
)
def test_a_shard_that_ends_within_a_group_is_refused_by_name(
    folder: Path, tier: str, outputs: int, inputs: int, kept: int
) -> None:
    contents = read_contents(folder, "quantgate")
    with pytest.raises(FormatError, match=rf"model\.layers\.0\.{tier}: .* keeps {kept} together"):
        one_part(contents, f"model.layers.0.{tier}", [(ROWS, outputs)], inputs, 1, max(ROWS // outputs, 512 // inputs))


def test_a_layer_of_another_model_is_refused(folder: Path) -> None:
    contents = read_contents(folder, "quantgate")
    with pytest.raises(FormatError, match=r"vq2 is stored as \[512, 512\], and the server's layer has \[96\] outputs"):
        one_part(contents, "model.layers.0.vq2", [(96, 96)], COLUMNS, 0, 1)
    with pytest.raises(FormatError, match="neither as codes nor as a matrix"):
        one_part(contents, "model.layers.0.absent", [(96, 96)], COLUMNS, 0, 1)


def test_what_is_loaded_is_held_against_the_file(folder: Path) -> None:
    contents = read_contents(folder, "quantgate")
    part = one_part(contents, "model.layers.0.vq2", [(ROWS, ROWS)], COLUMNS, 0, 1)
    part.load("codes", part.headers["codes"].read(), CPU)
    with pytest.raises(FormatError, match=r"vq2\.scales was not loaded"):
        part.require_sound()
    with pytest.raises(FormatError, match=r"vq2\.codes came as torch.int32 \[4, 32\], and its file has"):
        part.load("codes", part.headers["codes"].read()[:4], CPU)
    with pytest.raises(FormatError, match=r"vq2\.weight_packed has come"):
        part.load("weight_packed", torch.zeros(1), CPU)
    part.load("scales", torch.full(part.headers["scales"].shape, float("nan"), dtype=torch.float16), CPU)
    with pytest.raises(FormatError, match=r"vq2\.scales holds scales that are not positive and finite"):
        part.require_sound()


def test_ranks_that_linears_and_experts_do_not_split_over(tmp_path: Path) -> None:
    expert, other = "model.layers.0.mlp.experts.0.down_proj", "model.layers.0.self_attn.o_proj"
    save_coded(tmp_path, {expert: ("vq2", 128, 192), other: ("vq2", 128, 256)})
    contents = read_contents(tmp_path, "quantgate")
    require_split(contents, {}, 2, 1)  # expert parallelism
    with pytest.raises(FormatError, match=r"experts\.0\.down_proj has 192 inputs, which do not split over 2 ranks"):
        require_split(contents, {}, 2, 2)
    with pytest.raises(FormatError, match=r"o_proj has 256 inputs, which do not split over 4 ranks"):
        require_split(contents, {}, 4, 1)


def test_a_server_that_loads_has_another_default_device(folder: Path) -> None:
    made = (read_contents, rotation.signs_of, rotation.hadamard, tables.normal_table)
    for function in made:
        function.cache_clear()
    try:
        with torch.device("meta"):  # as a worker's is the GPU when it makes its first layer
            contents = read_contents(folder, "quantgate")
            assert contents.tables and rotation.hadamard(64).device == CPU
        assert all(table.device == CPU for table in contents.tables.values())
    finally:
        for function in made:
            function.cache_clear()


def test_names_are_those_of_the_server(tmp_path: Path) -> None:
    layer = "model.language_model.layers.0.mlp"
    linears = {f"{layer}.{name}_proj": ("vq2", 64, 64) for name in ("gate", "up")} | {"lm_head": ("plain", 64, 64)}
    contents = read_contents(save_coded(tmp_path, linears), "quantgate")
    rename = [lambda name: name.replace("model.language_model.", "language_model.model.")]
    found = named(contents, rename, {"text_config": {"num_hidden_layers": 1}})
    fused = found.stored("language_model.model.layers.0.mlp.gate_up_proj", {})
    assert fused == [f"{layer}.gate_proj", f"{layer}.up_proj"] and found.coded(fused)
    assert found.stored("language_model.model.layers.0.mlp.both", {"both": ["up_proj", "gate_proj"]}) == fused[::-1]
    assert found.stored("lm_head", {}) == ["lm_head"] and not found.coded(["lm_head"])
    assert found.stored("language_model.model.layers.0.mlp.qkv_proj", {}) == []
    assert [found.must_store(f"model.layers.{n}.x") for n in (0, 1)] == [True, False]  # 1: a draft head
    assert not found.must_store("model.projector")


def test_tables_that_a_server_would_take_for_weights(tmp_path: Path) -> None:
    save_coded(tmp_path, {"model.layers.0.q_proj": ("vq2", 64, 64)})
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(FormatError, match=r"index\.json is missing: without it servers read the tables as weights"):
        read_contents(tmp_path, "quantgate")


def test_the_aqlm_projects_own_config(tmp_path: Path) -> None:
    save_coded(tmp_path, {"model.layers.0.q_proj": ("aqlm", 64, 64), "model.layers.0.k_proj": ("plain", 64, 64)})
    config = json.loads((tmp_path / "config.json").read_text())
    layout = {key: TIERS["aqlm"][key] for key in ("num_codebooks", "nbits_per_codebook", "out_group_size")}
    ignored = {"linear_weights_not_to_quantize": ["model.layers.0.k_proj.weight"]}
    config["quantization_config"] = {"quant_method": "aqlm", **layout, **ignored}
    (tmp_path / "config.json").write_text(json.dumps(config))
    contents = read_contents(tmp_path, "aqlm")
    assert contents.shapes == {"model.layers.0.q_proj": (64, 64)} and contents.settings.tables is None
    part = loaded(one_part(contents, "model.layers.0.q_proj", [(64, 32)], 64, 1, 2))
    stored = {name: header.read() for name, header in part.headers.items()}
    expected = oracle.weight(stored, TIERS["aqlm"], {})[32:]
    torch.testing.assert_close(part.weight({}, torch.float32).to(torch.float64), expected, rtol=1e-5, atol=1e-5)

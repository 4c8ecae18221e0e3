"""Originals that are not bf16: 8-bit floats in blocks are quantized as the bf16 model they stand for, fp16 as it is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fp8_sources import SETTINGS, blocked, by_hand, save_block_fp8
from safetensors.torch import load_file, save_file
from tiny_llama import CALIBRATION, save_tiny_llama

from quantizers import checkpoint as reading
from quantizers.checkpoint import BlockFp8, fingerprint, open_checkpoint, read_tensor
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.modeling import build
from quantizers.pipeline import quantize
from quantizers.plan import make_plan
from quantizers.recipe import Calibration, Recipe
from quantizers.soundness import require_sound
from quantizers.sources import open_source
from quantizers.writing import copy_entry, write_shard

Tensors = dict[str, torch.Tensor]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    file = tmp_path_factory.mktemp("text") / "calibration.txt"
    file.write_text(CALIBRATION, encoding="utf-8")
    return Recipe(
        tune="none",
        name="w4a16",
        calibration=Calibration(samples=2, length=32, file=file),
        ignore=("lm_head", "model.layers.1.self_attn.o_proj"),
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of more than one block either way, with an MTP layer in bf16 and one whose Linear is quantized too."""
    model = save_tiny_llama(tmp_path_factory.mktemp("original") / "m", hidden_size=192, intermediate_size=320)
    file = model / "model.safetensors"
    before, last, draft = load_file(file), "model.layers.1.", "model.layers.2."
    extra = {name.replace(last, draft): tensor.clone() for name, tensor in before.items() if name.startswith(last)}
    sizes = {"eh_proj": (192, 384), "enorm": (192,), "hnorm": (192,), "odd_proj": (140, 192), "eh": (8, 192)}
    extra |= {f"{draft}{name}.weight": torch.randn(*size) for name, size in sizes.items()}
    save_file(before | {k: v.to(torch.bfloat16) for k, v in extra.items()}, file, metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    return model


@pytest.fixture
def pair(original: Path, tmp_path: Path) -> tuple[Path, Path]:
    """It in block fp8, and the bf16 model that this stands for."""
    save_block_fp8(original, tmp_path / "fp8" / "m", tmp_path / "bf16" / "m")
    return tmp_path / "fp8" / "m", tmp_path / "bf16" / "m"


def tensors_of(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))
    )


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (128, 128), (300, 257), (129, 40), (0, 5)])
def test_it_is_read_as_the_bf16_matrix_it_stands_for(
    tmp_path: Path, shape: tuple[int, int], scale_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, scales = blocked(torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 3e-3, scale_dtype)
    save_file({"a.weight": codes, "a.weight_scale_inv": scales}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": SETTINGS}))
    for band in (1, 16 << 20):  # a row of blocks at a time, and all at once
        monkeypatch.setattr(reading, "BAND_BYTES", band)
        source = open_source(tmp_path)
        (info,) = source.tensors.values()
        assert info.dtype == "BF16" and info.nbytes == 2 * codes.numel() and "quantization_config" not in source.config
        assert same_bytes(read_tensor(info), by_hand(codes, scales))
        write_shard(tmp_path / "copy", [copy_entry(info)])
        assert same_bytes(load_file(tmp_path / "copy")["a.weight"], by_hand(codes, scales))


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["int4", "fp8"])
def test_it_is_quantized_into_the_bytes_of_its_bf16_copy(pair: tuple[Path, Path], recipe: Recipe, tier: str) -> None:
    recipe = recipe.model_copy(update={"tier": tier})
    out, expected = (quantize(model, recipe, model.parent / "out", device="cpu") for model in pair)
    found, wanted = tensors_of(out), tensors_of(expected)  # their order in the shards is that of the original's files
    assert found.keys() == wanted.keys() and all(same_bytes(found[name], wanted[name]) for name in wanted)
    for name in ("config.json", "model.safetensors.index.json", "generation_config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (expected / name).read_bytes()
    card, plain = ((folder / "README.md").read_text() for folder in (out, expected))
    assert "| original | stored in F8_E4M3 in blocks of 128 x 128, BF16 |" in card
    assert (
        "10 matrices of 8-bit floats among them are bf16 now (first: `model.layers.1.self_attn.o_proj.weight`)" in card
    )
    assert "| original | stored in BF16 |" in plain and "among them" not in plain


def test_nothing_of_fp8_is_left_and_the_mtp_layer_is_bf16(pair: tuple[Path, Path], recipe: Recipe) -> None:
    fp8, bf16 = pair
    rounding = Recipe.model_validate(
        {"name": "x", "tier": "fp8", "ignore": ["lm_head", r"re:model\.layers\.0\..*"], "tune": "none"}
    )
    out = quantize(fp8, rounding, fp8.parent / "out", device="cpu")
    before, plain, after = tensors_of(fp8), tensors_of(bf16), tensors_of(out)
    targets = {n for n in before if n.startswith("model.layers.1.") and n.endswith("_proj.weight")}
    kept = {name for name in before if not name.endswith("_scale_inv")} - targets
    assert len(targets) == 7 and after.keys() == kept | targets | {f"{name}_scale_inv" for name in targets}
    for name in kept:
        assert same_bytes(after[name], plain[name]), name
    assert same_bytes(after["model.layers.2.eh.weight"], before["model.layers.2.eh.weight"])
    settings = json.loads((out / "config.json").read_text())["quantization_config"]
    assert r"re:model\.layers\.2\..*" in settings["modules_to_not_convert"]


def test_dequantize_agrees(pair: tuple[Path, Path]) -> None:
    fp8, bf16 = pair
    plain = dequantize(fp8, fp8.parent / "plain")
    written, expected = tensors_of(plain), tensors_of(bf16)
    assert written.keys() == expected.keys()
    assert all(same_bytes(written[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_size_and_fingerprint(pair: tuple[Path, Path], recipe: Recipe) -> None:
    sources = [open_source(folder) for folder in pair]
    sizes = [make_plan(source, build(source), recipe).output_bytes() for source in sources]
    assert (
        sizes[0]
        == sizes[1]
        == sum(t.nbytes for t in tensors_of(quantize(pair[0], recipe, pair[0].parent / "o", device="cpu")).values())
    )
    mark = fingerprint(sources[0])
    assert mark != fingerprint(sources[1])
    tensors = load_file(pair[0] / "model.safetensors")
    for name in (UP, f"{UP}_scale_inv"):
        moved = dict(tensors)
        moved[f"{UP}s"] = moved.pop(name)  # the same bytes under another name
        save_file(moved, pair[0] / "model.safetensors")
        assert fingerprint(replace(sources[0], tensors=open_checkpoint(pair[0]).tensors)) != mark


def _nan_code(tensors: Tensors) -> None:
    tensors[UP].view(torch.uint8)[5, 7] = 0x7F


def _scale(value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[f"{UP}_scale_inv"][1, 1] = value

    return change


def _scales(shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({f"{UP}_scale_inv": torch.ones(shape, dtype=dtype)})


def _e8m0_nan(tensors: Tensors) -> None:
    tensors[f"{UP}_scale_inv"] = torch.full((3, 2), 0xFF, dtype=torch.uint8).view(torch.float8_e8m0fnu)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan_code, rf"tensor {UP} in .* holds NaN"),
        (_scale(float("nan")), rf"tensor {UP}_scale_inv in .* holds NaN or infinity"),
        (_scale(float("inf")), rf"tensor {UP}_scale_inv in .* holds NaN or infinity"),
        (_e8m0_nan, rf"tensor {UP}_scale_inv in .* holds NaN or infinity"),
        (_scale(-1e37), rf"tensor {UP}_scale_inv in .* holds 1e\+37, and bf16 ends at"),
        (_scales((2, 3), torch.float32), rf"{UP}_scale_inv is F32 \[2, 3\], but blocks .* of \[320, 192\] have"),
        (_scales((), torch.float32), rf"{UP}_scale_inv is F32 \[\], but blocks"),
        (_scales((3, 2), torch.int32), rf"{UP}_scale_inv is I32 \[3, 2\], but blocks"),
        (lambda t: t.pop(f"{UP}_scale_inv"), rf"{UP} is F8_E4M3, and {UP}_scale_inv is not there"),
        (lambda t: t.pop(UP), rf"{UP}_scale_inv is stored, but {UP} is not there"),
        (lambda t: t.update({UP: t[UP].to(torch.bfloat16)}), rf"{UP}_scale_inv is stored, but {UP} is BF16"),
        (lambda t: t.update({UP: t[UP][None]}), rf"{UP} is F8_E4M3 \[1, 320, 192\], not a matrix"),
        (lambda t: t.update({UP: t[UP].view(torch.uint8).view(torch.float8_e5m2)}), rf"{UP} is F8_E5M2"),
        (lambda t: t.update({UP: t[UP][:300]}), rf"{UP} is \[300, 192\] but config.json asks for \[320, 192\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_named(
    pair: tuple[Path, Path], recipe: Recipe, change: Callable[[Tensors], None], message: str
) -> None:
    fp8 = pair[0]
    tensors = load_file(fp8 / "model.safetensors")
    change(tensors)
    save_file(tensors, fp8 / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QuantizeError, match=message) as caught:
        quantize(fp8, recipe, fp8.parent / "out", device="cpu")
    assert "\n" not in str(caught.value) and [p.name for p in fp8.parent.iterdir()] == ["m"]


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "fp8"},
        SETTINGS | {"weight_block_size": [64, 64]},
        SETTINGS | {"weight_block_size": None},
        SETTINGS | {"quant_method": "compressed-tensors"},
    ],
)
def test_other_8_bit_floats_stay_refused(pair: tuple[Path, Path], recipe: Recipe, settings: dict[str, object]) -> None:
    fp8 = pair[0]
    config = json.loads((fp8 / "config.json").read_text()) | {"quantization_config": settings}
    (fp8 / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        QuantizeError, match=r"is already quantized \(.*\): give the original model, in 16 bits or in 8-"
    ):
        quantize(fp8, recipe, fp8.parent / "out", device="cpu")


def test_8_bit_floats_that_no_config_names_stay_refused(pair: tuple[Path, Path], recipe: Recipe) -> None:
    fp8 = pair[0]
    config = json.loads((fp8 / "config.json").read_text())
    del config["quantization_config"]
    (fp8 / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantizeError, match=r"_proj.weight is already quantized \(F8_E4M3\)"):
        quantize(fp8, recipe, fp8.parent / "out", device="cpu")


def test_settings_in_text_config_and_beside_are_found(pair: tuple[Path, Path]) -> None:
    fp8 = pair[0]
    config = json.loads((fp8 / "config.json").read_text())
    del config["quantization_config"]
    config["text_config"] = {"quantization_config": SETTINGS, "compression_config": {}, "hidden_size": 1}
    (fp8 / "config.json").write_text(json.dumps(config))
    source = open_source(fp8)
    assert isinstance(source.tensors[UP], BlockFp8) and source.config["text_config"] == {"hidden_size": 1}
    require_sound(source)


@pytest.mark.slow
def test_fp16_is_quantized_as_the_values_it_holds(original: Path, tmp_path: Path, recipe: Recipe) -> None:
    """Codes are those of a float32 copy; what is not quantized keeps its bytes."""
    outs = []
    for dtype in (torch.float16, torch.float32):
        folder = save_tiny_llama(tmp_path / str(dtype)[6:] / "m")
        tensors = {name: t.to(torch.float16).to(dtype) for name, t in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        outs.append((tensors, tensors_of(quantize(folder, recipe, folder.parent / "out", device="cpu"))))
    (half, of_half), (_, of_single) = outs
    assert of_half.keys() == of_single.keys() and any(name.endswith("weight_packed") for name in of_half)
    for name, tensor in of_half.items():
        assert same_bytes(tensor, half[name] if name in half else of_single[name]), name

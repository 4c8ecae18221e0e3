"""A checkpoint made by the pipeline is sound; spoiled in any way it is refused by one line that names the place."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from quantgate_kernels.formats import aqlm, vq
from quantgate_kernels.settings import FormatError
from quantgate_kernels.validate import main, require_values, validate
from safetensors.torch import load_file, save_file

from harness.checkpoint.models import describe
from harness.contract.errors import BadInput
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError

pytestmark = pytest.mark.slow  # quantizes a whole model

TABLES = "quantgate_tables.safetensors"
Q0, Q1, Q2 = (f"model.layers.{layer}.self_attn.q_proj" for layer in range(3))
GATE0, GATE1, DOWN0 = "model.layers.0.mlp.gate_proj", "model.layers.1.mlp.gate_proj", "model.layers.0.mlp.down_proj"
Weights = dict[str, torch.Tensor]


def rewrite(file: Path, change: Callable[[Weights], object]) -> None:
    weights = load_file(file)
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)


def with_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], None]:
    """Changes one tensor of a shard, or removes it from shard and index."""

    def spoil(folder: Path) -> None:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        file = folder / index["weight_map"][name]
        if change is None:
            rewrite(file, lambda weights: weights.pop(name))
            del index["weight_map"][name]
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        else:
            rewrite(file, lambda weights: weights.update({name: change(weights[name])}))

    return spoil


def with_table(name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], None]:
    def edit(tables: Weights) -> None:
        if change is None:
            del tables[name]
        else:
            tables[name] = change(tables[name])

    return lambda folder: rewrite(folder / TABLES, edit)


def with_settings(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config["quantization_config"])
        (folder / "config.json").write_text(json.dumps(config))

    return spoil


def flipped(table: torch.Tensor) -> torch.Tensor:
    changed = table.clone()
    changed.view(-1)[3] *= -1
    return changed


def other_trellis(folder: Path) -> None:
    """A table with the sha256 that config.json has, and not of the seed."""
    import hashlib

    with_table("trellis.8", flipped)(folder)
    sha256 = hashlib.sha256(load_file(folder / TABLES)["trellis.8"].numpy().tobytes()).hexdigest()
    with_settings(lambda s: s["tiers"]["trellis2"]["codebook"].update(sha256=sha256))(folder)


def cut(folder: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-7])


def without(name: str, *parts: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for part in parts:
            with_tensor(f"{name}.{part}", None)(folder)

    return spoil


def plain(folder: Path) -> None:
    """A Linear of the default tier, stored as it was."""
    without(Q2, "scales")(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = index["weight_map"].pop(f"{Q2}.codes")
    rewrite(folder / shard, lambda w: (w.pop(f"{Q2}.codes"), w.update({f"{Q2}.weight": torch.ones(64, 64)})))
    index["weight_map"][f"{Q2}.weight"] = shard
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shard is cut off": (cut, r"model\.layers\.0\.\S+ is cut off: \S+ has \d+ bytes, and it ends at \d+"),
    "a shard is gone": (lambda f: sorted(f.glob("model-*"))[0].unlink(), r"model-00001\S+ cannot be read"),
    "words are lost": (with_tensor(f"{Q2}.codes", lambda t: t[:, :-1]), rf"{Q2}\.codes has 3 words a row, .* no whole"),
    "a group is lost": (with_tensor(f"{Q2}.codes", lambda t: t[:, :-2]), rf"{Q2} has codes of 32 inputs, and signs"),
    "rows are lost": (with_tensor(f"{Q2}.codes", lambda t: t[:-1]), rf"{Q2}\.scales is torch.float16 \[64, 1\], not"),
    "tiles are cut": (with_tensor(f"{Q0}.codes", lambda t: t[:, :-1]), rf"{Q0}\.codes has 63 words a row of tiles"),
    "tiles are lost": (with_tensor(f"{Q0}.codes", lambda t: t[:-1]), rf"{Q0}\.scales is torch.float16 \[64, 1\], not"),
    "integers are cut": (with_tensor(f"{GATE0}.weight_packed", lambda t: t[:, :-1]), rf"{GATE0}\.weight_packed has 7"),
    "other words": (with_tensor(f"{Q2}.codes", lambda t: t.to(torch.int64)), rf"{Q2}\.codes is torch\.int64 \[64, 4\]"),
    "other scales": (with_tensor(f"{Q2}.scales", torch.Tensor.float), rf"{Q2}\.scales is torch\.float32 \[64, 1\]"),
    "other floats": (
        with_tensor(f"{Q1}.weight", lambda t: t.to(torch.bfloat16)), rf"{Q1}\.weight is torch\.bfloat16 \[64, 64\]"
    ),
    "other blocks": (with_tensor(f"{Q1}.weight_scale_inv", lambda t: t.repeat(2, 1)), rf"{Q1}\.weight_scale_inv is"),
    "no codes": (without(Q2, "codes"), rf"{Q2}\.codes is missing, and vq stores it"),
    "no scales": (without(Q2, "scales"), rf"{Q2}\.scales is missing, and vq stores it"),
    "neither, and marked": (without(Q0, "codes", "scales"), rf"{Q0} has a tier in config\.json, and no codes"),
    "neither, by default": (plain, rf"{Q2}\.weight is stored as it was, and by config\.json its module has the tier"),
    "codes of what is ignored": (with_settings(lambda s: s["ignore"].append(Q2)), rf"{Q2} has codes, and .* `ignore`"),
    "codes of an ignored layer": (
        with_settings(lambda s: s["ignore"].append(r"re:model\.layers\.2\..*")), r"model\.layers\.2\.\S+ has codes, and"
    ),
    "a mark of another format": (with_settings(lambda s: s["modules"].pop(GATE1)), rf"{GATE1}\.codes is missing"),
    "a mark too many": (with_settings(lambda s: s["modules"].update({Q2: "fp8"})), rf"{Q2}\.weight_scale_inv is miss"),
    "an unknown tier": (with_settings(lambda s: s["modules"].update({Q2: "vq9"})), rf"{Q2} has the tier vq9, which"),
    "an unknown format": (with_settings(lambda s: s["tiers"]["vq2"].update(format="v")), r"has the format v, which is"),
    "an unknown rotation": (with_settings(lambda s: s["tiers"]["vq2"].update(rotation={})), r"has the rotation {}"),
    "a newer version": (with_settings(lambda s: s.update(format_version=2)), r"has format version 2, and .* reads 1:"),
    "no version": (with_settings(lambda s: s.pop("format_version")), r"format_version None in config\.json is none"),
    "no tables": (lambda f: (f / TABLES).unlink(), rf"{TABLES} cannot be read \(No such file"),
    "tables elsewhere": (with_settings(lambda s: s.update(tables="../x")), r"the tables \.\./x are no file of"),
    "no codebook": (with_table("codebooks.vq2", None), r"codebooks\.vq2, the table of tier vq2, is missing"),
    "another codebook": (with_table("codebooks.vq2", flipped), r"codebooks\.vq2 is not the table whose sha256"),
    "another layout": (with_settings(lambda s: s["tiers"]["vq2"].update(dimensions=8)), r"not the 256 entries of 8"),
    "a table not of its seed": (other_trellis, r"trellis\.8 is not what seed 20260101 gives"),
    "wide tables": (with_table("signs.64", torch.Tensor.float), r"signs\.64 is torch\.float32, not int8"),
    "no signs": (with_table("signs.64", None), r"signs\.64 is not in the tables file"),
    "other signs": (with_table("signs.64", flipped), r"signs\.64 in the tables file is not what seed 7 gives"),
}  # fmt: skip


def test_what_the_pipeline_makes_is_sound(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = validate(mixed)
    assert found.shapes[Q0] == found.shapes[Q1] == found.shapes[Q2] == (64, 64)
    assert found.shapes[GATE0] == found.shapes[GATE1] == (192, 64) and found.shapes[DOWN0] == (64, 192)
    assert len(found.shapes) == 21
    assert not describe("mixed", mixed).doubts
    monkeypatch.setattr(sys, "argv", ["validate", str(mixed)])
    main()
    assert re.search(r"sound; .*'fp8': 4, .*'vq2': 9", capsys.readouterr().out)
    monkeypatch.setattr(sys, "argv", ["validate", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: \S+config\.json is missing: give a complete"):
        main()


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_spoiled_is_refused_by_name(what: str, mixed: Path, tmp_path: Path) -> None:
    spoil, message = SPOILED[what]
    folder = tmp_path / "spoiled"
    shutil.copytree(mixed, folder)
    spoil(folder)
    with pytest.raises(FormatError, match=message) as caught:
        validate(folder)
    assert "\n" not in str(caught.value) and str(caught.value).count(": ") >= 1, "the way out is named"
    with pytest.raises(QuantizeError):
        dequantize(folder, tmp_path / "out")
    with pytest.raises(BadInput):
        describe("spoiled", folder)
    assert not (tmp_path / "out").exists()


def test_a_shard_ends_at_a_group_or_is_refused_by_name(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"{DOWN0} has 192 inputs, .* over 2 ranks \(vq keeps 64"):
        validate(mixed, tensor_parallel=2)
    with pytest.raises(FormatError, match=r"down_proj has 192 inputs"):
        validate(mixed, tensor_parallel=4)


def test_the_values_of_a_linear_are_checked_when_it_is_loaded(mixed: Path, tmp_path: Path) -> None:
    contents = validate(mixed)
    for module in contents.shapes:
        tier = contents.settings.tier_of(module)
        parts = {n.rpartition(".")[2]: h.read() for n, h in contents.headers.items() if n.rpartition(".")[0] == module}
        require_values(module, parts, tier)
    folder = tmp_path / "nan"
    shutil.copytree(mixed, folder)
    with_tensor(f"{Q2}.scales", lambda t: torch.full_like(t, torch.nan))(folder)
    validate(folder)
    with pytest.raises(QuantizeError, match=rf"{Q2}\.scales holds scales that are not positive and finite"):
        dequantize(folder, tmp_path / "out")


def test_values_that_stand_for_no_weight() -> None:
    parts = aqlm.encode(torch.zeros(8, 4, 2, dtype=torch.int32), torch.zeros(2, 64, 1, 8), torch.ones(8))
    tier = {"format": aqlm.FORMAT, **aqlm.AQLMLayout(2, 6).settings()}
    require_values("m", parts, tier)
    with pytest.raises(FormatError, match=r"m\.codes holds a code beyond 64 entries"):
        require_values("m", parts | {"codes": parts["codes"] + 32}, tier)
    with pytest.raises(FormatError, match=r"m\.codebooks holds values that are not finite"):
        require_values("m", parts | {"codebooks": parts["codebooks"] / 0}, tier)
    packed = {"weight_packed": torch.zeros(8, 4, dtype=torch.int32), "weight_scale": torch.ones(8, 1)}
    with pytest.raises(FormatError, match=r"m\.weight_shape is not that of weight_packed"):
        shape = torch.tensor([8, 64])
        require_values("m", packed | {"weight_shape": shape}, {"format": "pack-quantized", "bits": 4})
    for bad in (0.0, -1.0, torch.inf, torch.nan):
        with pytest.raises(FormatError, match=r"m\.scales holds scales that are not positive and finite"):
            require_values("m", {"scales": torch.tensor([[bad]])}, {"format": vq.FORMAT})

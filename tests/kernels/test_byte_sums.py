"""The table of a trellis that kernels compute: what it holds, and what is refused in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coded_folders
import pytest
import torch
from quantgate_kernels import oracle
from quantgate_kernels.formats.trellis import MULTIPLIER, read
from quantgate_kernels.settings import FormatError
from quantgate_kernels.tables import BYTE_SUMS, byte_sums, normal_table, sha256_of_table
from quantgate_kernels.validate import validate
from safetensors.torch import load_file, save_file

NAME, MODULE = "trellis.sums", "model.layers.0.q_proj"


def with_table(folder: Path, table: torch.Tensor, **book: Any) -> None:
    """Put another table in its place, with its sha256 in the config."""
    file, config = folder / coded_folders.TABLES, json.loads((folder / "config.json").read_text())
    save_file(load_file(file) | {NAME: table}, file)
    entry = config["quantization_config"]["tiers"]["trellis2"]["codebook"]
    entry.update(sha256=sha256_of_table(table), **book)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    book = {"kind": BYTE_SUMS, "seed": MULTIPLIER, "sha256": sha256_of_table(byte_sums())}
    tier = coded_folders.TIERS["trellis2"] | {"state_bits": 16, "table": NAME, "codebook": book}
    monkeypatch.setitem(coded_folders.TIERS, "trellis2", tier)
    monkeypatch.setitem(coded_folders.BOOKS, NAME, byte_sums())
    return coded_folders.save_coded(tmp_path / "model", {MODULE: ("trellis2", 32, 128)})


def test_an_entry_is_the_sum_of_four_signed_bytes() -> None:
    table = byte_sums()
    for state in (0, 1, 2, 255, 256, 40000, 65535):
        product = (state * MULTIPLIER % (1 << 32)).to_bytes(4, "little")
        assert table[state] == sum(byte - 256 if byte > 127 else byte for byte in product)
    assert 147 < float(table.double().std()) < 148.5 and abs(float(table.double().mean())) < 2.5


def test_a_checkpoint_of_them_is_sound_and_read(folder: Path) -> None:
    contents = validate(folder)
    tier, stored = contents.settings.tiers["trellis2"], load_file(folder / "model.safetensors")
    tensors = {part: stored[f"{MODULE}.{part}"] for part in ("codes", "scales")}
    expected = oracle.weight(tensors, tier, contents.tables)
    torch.testing.assert_close(read(tensors, tier, contents.tables).double(), expected, rtol=1e-5, atol=1e-5)


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "other values": (lambda f: with_table(f, byte_sums().roll(1)), rf"{NAME} is not what seed {MULTIPLIER} gives"),
    "another multiplier": (lambda f: with_table(f, byte_sums(), seed=3), rf"{NAME} is not what seed 3 gives"),
    "fewer states": (lambda f: with_table(f, byte_sums()[:256]), rf"{NAME} is not what seed"),
    "bytes": (lambda f: with_table(f, normal_table(16)), rf"{NAME} is torch.int8, not int16"),
    "of another kind": (lambda f: with_table(f, byte_sums(), kind="normal quantiles"), rf"{NAME} is .*int16, not int8"),
    "of no kind": (lambda f: with_table(f, normal_table(16), kind="sines"), "of the kind sines, .* install a newer"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_another_table_is_refused(what: str, folder: Path) -> None:
    spoil, message = SPOILED[what]
    spoil(folder)
    with pytest.raises(FormatError, match=message):
        validate(folder)

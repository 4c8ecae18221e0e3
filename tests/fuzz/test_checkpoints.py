"""Whatever a checkpoint's headers, index and config say: it is described, or refused in one line. No weight is read."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from coded_folders import save_coded
from fuzzing import fuzz
from mutations import as_json, damaged, edited
from quantgate_kernels.headers import read_header as read_coded_header
from quantgate_kernels.settings import FormatError
from quantgate_kernels.validate import validate

from harness.checkpoint.claims import read_card
from harness.checkpoint.models import base_model_of, describe, quantization_of
from harness.contract.errors import BadInput
from quantizers.checkpoint import read_header
from quantizers.errors import QuantizeError

WHOLE = Path(tempfile.mkdtemp(prefix="quantgate-fuzz-"))
LAYER = "model.layers.0"
CODED = save_coded(
    WHOLE / "coded",
    {
        f"{LAYER}.self_attn.q_proj": ("vq2", 64, 64),
        f"{LAYER}.mlp.up_proj": ("int4", 64, 64),
        "lm_head": ("plain", 64, 64),
    },
    {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 64},
)
CONFIG = json.loads((CODED / "config.json").read_text())
INDEX = json.loads((CODED / "model.safetensors.index.json").read_text())
FILE = (CODED / "model.safetensors").read_bytes()
LENGTH = struct.unpack("<Q", FILE[:8])[0]
HEADER = json.loads(FILE[8 : 8 + LENGTH])
GPTQ = {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
CARD = "---\nbase_model: o/m\ntags: [awq, 4-bit]\nlicense: mit\nmodel-index: [{name: n}]\n---\n# Model, 4-bit\n"


def stored(header: Any) -> bytes:
    text = as_json(header).encode()
    return struct.pack("<Q", len(text)) + text + FILE[8 + LENGTH :]


@pytest.mark.parametrize("odd", [{}, [], {"a": 1}, 7, None, "\x00"])
@pytest.mark.parametrize("place", ["default_tier", "modules", "tiers"])
def test_a_tier_that_is_no_name_is_refused(tmp_path: Path, place: str, odd: Any) -> None:
    """Found by fuzzing: a tier's name that is an object was looked up as a key."""
    shutil.copytree(CODED, tmp_path / "m")
    config = json.loads(as_json(CONFIG))
    settings = config["quantization_config"]
    settings[place] = dict.fromkeys(settings[place], odd) if place != "default_tier" else odd
    (tmp_path / "m" / "config.json").write_text(as_json(config))
    with pytest.raises(BadInput):
        describe("m", tmp_path / "m")


def read_both(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        path = Path(name) / "model.safetensors"
        path.write_bytes(data)
        with suppress(QuantizeError):
            read_header(path)
        with suppress(FormatError):
            read_coded_header(path)


@fuzz(6, data=damaged([FILE, FILE[: 8 + LENGTH]]))
def test_bytes_of_a_safetensors_file(data: bytes) -> None:
    read_both(data)


@fuzz(5, header=edited([HEADER]))
def test_values_of_a_safetensors_header(header: Any) -> None:
    read_both(stored(header))


@fuzz(8, config=edited([CONFIG, GPTQ]), index=edited([INDEX]), card=damaged([CARD.encode()]))
def test_a_folder_whose_config_index_and_card_say_anything(config: Any, index: Any, card: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        folder = Path(name)
        (folder / "model.safetensors").symlink_to(CODED / "model.safetensors")
        (folder / "config.json").write_text(as_json(config))
        (folder / "model.safetensors.index.json").write_text(as_json(index))
        (folder / "README.md").write_bytes(card)
        for read in (quantization_of, base_model_of, read_card):
            with suppress(BadInput, QuantizeError):
                read(folder)
        with suppress(BadInput):
            facts = describe("m", folder)
            assert facts.bytes == len(FILE) and facts.bits_per_weight >= 0


@fuzz(6, config=edited([CONFIG], most=2), header=edited([HEADER, HEADER, None], most=1))
def test_the_validator_of_coded_checkpoints(config: Any, header: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        folder = Path(name) / "m"
        shutil.copytree(CODED, folder)
        (folder / "config.json").write_text(as_json(config))
        if header is not None:
            (folder / "model.safetensors").write_bytes(stored(header))
        with suppress(FormatError):
            validate(folder)
        with suppress(FormatError):
            validate(folder, 2)

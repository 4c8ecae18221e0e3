"""What other quantizers make of the same model from the same calibration, so that benchmarks.kl_panel judges all alike.

    python -m benchmarks.peers TOOL MODEL --calibration FILE --bits B --out DIR    # rows {"ids"}, all of one length
    python -m benchmarks.peers record RESULT.json DIR...    # bits, versions and settings into kl_panel's result

TOOL is llm-compressor (W4A16), gptqmodel or auto-round, each with its own defaults at groups of 128; `--set NAME=JSON`
gives it another setting of its own, such as AutoRound's `enable_alg_ext`, which its makers advise at 2 bits.
llm-compressor writes compressed-tensors; the others' weights are turned back into bf16 and saved as a plain
checkpoint, since their formats need their kernels. Each tool lives in an environment of its own: they contradict each
other's requirements.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.serving.hardware import detect

GROUP = 128
BATCH = 8
SIDECAR = "peer.json"
"""What is known about how a folder came about; lies in it."""
PACKAGES = ("llmcompressor", "compressed-tensors", "gptqmodel", "auto-round", "torch", "transformers")

Rows = list[list[int]]
Settings = dict[str, Any]


def llm_compressor(folder: Path, rows: Rows, bits: int, out: Path, settings: Settings) -> Settings:
    """GPTQ, symmetric; writes compressed-tensors."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    if bits != 4:
        raise SystemExit("llm-compressor: only its preset W4A16 is compared")
    settings = {"scheme": "W4A16", "actorder": "static"} | settings
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    oneshot(
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        recipe=GPTQModifier(targets="Linear", ignore=["lm_head"], **settings),
        num_calibration_samples=len(rows),
        max_seq_length=len(rows[0]),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(out, save_compressed=True)
    return settings


def gptqmodel(folder: Path, rows: Rows, bits: int, out: Path, settings: Settings) -> Settings:
    """GPTQModel's GPTQ. Of its formats the second keeps zero points as they are; the first stores them less one."""
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=bits, group_size=GROUP, format="gptq_v2", offload_to_disk=False, **settings)
    model = GPTQModel.load(str(folder), config)
    model.quantize([{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows], batch_size=BATCH)
    packed = dict(model.model.named_modules())
    save_plain(folder, out, lambda name: packed[name].dequantize_weight().T)
    return {name: getattr(config, name) for name in ("sym", "desc_act", "act_group_aware", "damp_percent", "mse")}


def auto_round(folder: Path, rows: Rows, bits: int, out: Path, settings: Settings) -> Settings:
    """AutoRound with the 200 iterations a block that are its default."""
    from auto_round import AutoRound

    settings = {"scheme": f"W{bits}A16", "iters": 200} | settings
    rounder = AutoRound(
        AutoModelForCausalLM.from_pretrained(folder, dtype="auto"),
        AutoTokenizer.from_pretrained(folder),
        dataset=[{"input_ids": torch.tensor([row])} for row in rows],
        nsamples=len(rows),
        seqlen=len(rows[0]),
        batch_size=BATCH,
        **settings,
    )
    rounded = dict(rounder.quantize()[0].named_modules())
    save_plain(folder, out, lambda name: rounded[name].weight)
    return settings


def save_plain(folder: Path, out: Path, weight_of: Callable[[str], torch.Tensor]) -> None:
    """The model of `folder` with other weights [outputs, inputs] in the Linears of its layers, in bf16."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            weight = weight_of(name).detach().cpu()
            if torch.equal(weight.to(module.weight.dtype), module.weight):
                raise SystemExit(f"{name}: not quantized")
            module.weight.data.copy_(weight)
    model.save_pretrained(out)


TOOLS: dict[str, Callable[[Path, Rows, int, Path, Settings], Settings]] = {
    "llm-compressor": llm_compressor,
    "gptqmodel": gptqmodel,
    "auto-round": auto_round,
}
ZERO_POINTS = {"gptqmodel", "auto-round"}
"""Whose formats store a zero point for each scale, also where all are the same."""


def quantize(tool: str, folder: Path, calibration: Path, bits: int, out: Path, settings: Settings) -> dict[str, Any]:
    """Let a tool write the checkpoint `out`. Returns what is to be known about it."""
    text = calibration.read_bytes()
    rows = [json.loads(line)["ids"] for line in text.splitlines()]
    torch.manual_seed(0)
    start = time.monotonic()
    settings = TOOLS[tool](folder, rows, bits, out, settings)
    seconds = time.monotonic() - start
    hardware = detect()
    machine = {"processor": hardware.processor, "gpus": [gpu.name for gpu in hardware.gpus]}
    return {
        "tool": tool,
        # Codes, and for each group a scale of 16 bits and its zero point.
        "bits": round(bits + (16 + bits * (tool in ZERO_POINTS)) / GROUP, 4),
        "settings": settings,
        "calibration": {"rows": len(rows), "tokens": len(rows[0]), "sha256": hashlib.sha256(text).hexdigest()},
        "seconds": round(seconds, 1),
        "machine": machine,
        "versions": {"python": platform.python_version()} | dict(versions()),
    }


def versions() -> Iterator[tuple[str, str]]:
    """The tool, and what it computes with, as far as they are installed."""
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def record(result: Path, folders: list[Path]) -> None:
    """Add what is known about each folder to its figures."""
    kept = json.loads(result.read_text("utf-8"))
    for folder in folders:
        kept["results"][folder.name] |= json.loads((folder / SIDECAR).read_text("utf-8"))
    result.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def setting(text: str) -> tuple[str, Any]:
    """A setting of the command line: its name and its value."""
    name, _, value = text.partition("=")
    return name, json.loads(value)


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for tool in TOOLS:
        command = commands.add_parser(tool)
        command.add_argument("model", type=Path, help="a folder with safetensors, config and tokenizer")
        command.add_argument("--calibration", type=Path, required=True, help="token ids, a JSON line each")
        command.add_argument("--bits", type=int, choices=(2, 3, 4), required=True)
        command.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=JSON")
        command.add_argument("--out", type=Path, required=True)
    command = commands.add_parser("record")
    command.add_argument("result", type=Path, help="what kl_panel wrote about the folders")
    command.add_argument("folders", type=Path, nargs="+")
    asked = parser.parse_args(arguments)
    if asked.command == "record":
        record(asked.result, asked.folders)
        return 0
    found = quantize(asked.command, asked.model, asked.calibration, asked.bits, asked.out, dict(asked.set))
    (asked.out / SIDECAR).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"{asked.out.name}: {found['bits']} bits, {found['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

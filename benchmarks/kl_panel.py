"""How far a quantized checkpoint is from its original, token by token over fixed texts: the panel of the quantizers.

    python -m benchmarks.kl_panel REFERENCE CANDIDATE... --panel evaluation.jsonl --out FILE    # rows {"lang", "ids"}
    python -m benchmarks.kl_panel REFERENCE CANDIDATE... --texts F.txt ... --positions 512 --out FILE

Both models in float32, teacher-forced on ids[:-1]: KL(reference || candidate) over the whole vocabulary in nats, its
mean over all positions. A codebook checkpoint is turned into bf16 first (`quantgate dequantize`). Candidates are judged
one after the other, each beside the reference, so that two models are in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from harness.serving.hardware import detect
from quantizers.dequantize import dequantize

CHUNK = 128
"""Positions whose whole distributions are in memory at a time."""

Row = tuple[str, torch.Tensor]
"""What kind of text it is, and its token ids [n]."""


def panel_rows(panel: Path) -> list[Row]:
    """Rows of a panel file."""
    lines = [json.loads(line) for line in panel.read_text("utf-8").splitlines()]
    return [(str(line["lang"]), torch.tensor(line["ids"])) for line in lines]


def text_rows(model: Path, texts: list[Path], positions: int) -> list[Row]:
    """The beginning of each text, `positions` tokens of the model's own tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    heads = {text.stem: text.read_text("utf-8", "replace")[: 16 * positions] for text in texts}
    return [(name, torch.tensor(tokenizer(head)["input_ids"][: positions + 1])) for name, head in heads.items()]


def divergences(reference: Any, candidate: Any, rows: list[Row]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(kind, KL [n], whether the likeliest token differs [n]) of each row. Models are transformers' causal ones."""
    with torch.inference_mode():
        for kind, ids in rows:
            states = [
                model.model(ids[None, :-1].to(model.device)).last_hidden_state[0] for model in (reference, candidate)
            ]
            kl, flips = [], []
            for parts in zip(*(torch.split(state, CHUNK) for state in states), strict=True):
                p, q = (
                    torch.log_softmax(model.lm_head(part).float(), -1)
                    for model, part in zip((reference, candidate), parts, strict=True)
                )
                kl.append((p.exp() * (p - q)).sum(-1))
                flips.append(p.argmax(-1) != q.argmax(-1))
            yield kind, torch.cat(kl).cpu(), torch.cat(flips).cpu()


def figures(reference: Any, candidate: Any, rows: list[Row]) -> dict[str, Any]:
    """Mean, median and 99th percentile of KL, the share of flips, and the mean of each kind of text."""
    found = list(divergences(reference, candidate, rows))
    kl = torch.cat([values for _, values, _ in found]).double()
    flips = torch.cat([values for _, _, values in found]).double()
    kinds = {kind: torch.cat([v for k, v, _ in found if k == kind]).double() for kind, _, _ in found}
    return {
        "positions": len(kl),
        "kl_mean": round(float(kl.mean()), 5),
        "kl_median": round(float(kl.median()), 5),
        "kl_p99": round(float(kl.quantile(0.99)), 4),
        "flips": round(float(flips.mean()), 4),
        "kl_mean_by_kind": {kind: round(float(values.mean()), 5) for kind, values in kinds.items()},
    }


def load(folder: Path, device: str = "cpu") -> Any:
    """A checkpoint in float32; what is quantized is turned into bf16 first."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as plain:
        if "quantization_config" in json.loads((folder / "config.json").read_text("utf-8")):
            folder = dequantize(folder, Path(plain) / "bf16")
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval()


def machine() -> dict[str, Any]:
    """What a result says of the machine that made it."""
    hardware = detect()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": hardware.processor, "cores": os.cpu_count(), "gpu": gpu, "system": platform.platform()}


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kl_panel", description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("candidates", type=Path, nargs="+")
    parser.add_argument("--panel", type=Path, help="token ids, a JSON line each")
    parser.add_argument("--texts", type=Path, nargs="+", default=[], help="files of plain text")
    parser.add_argument("--positions", type=int, default=512, help="of each text")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    rows = panel_rows(asked.panel) if asked.panel else text_rows(asked.reference, asked.texts, asked.positions)
    reference, results = load(asked.reference, asked.device), {}
    for folder in asked.candidates:
        start = time.monotonic()
        results[folder.name] = figures(reference, load(folder, asked.device), rows)
        print(f"{folder.name}: {results[folder.name]['kl_mean']} nats, {time.monotonic() - start:.0f} s", flush=True)
    record = {
        "command": f"python -m benchmarks.kl_panel {' '.join(arguments or sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "quantgate")},
        "reference": asked.reference.name,
        "results": results,
    }
    asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

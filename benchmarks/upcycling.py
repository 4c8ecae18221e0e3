"""A small mixture of experts that is a language model: a dense Llama, sparsely upcycled and trained a little on a CPU.

    python -m benchmarks.upcycling DENSE OUT --texts F.txt F.jsonl...      # SmolLM2-135M: a few minutes on 2 cores

How it begins: `harness/prove/upcycling.py`. So far the model computes what the dense one does, which is checked. Then
each expert gets noise of its own, and routers and experts, nothing else, learn the next token of the texts. The record
beside the model (upcycling.json) says what became of it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.prove.upcycling import Shape, entering_of, upcycled

LAYERS = (12, 17, 22, 27)
"""Late ones: what lies before the first is not trained through."""
EXPERTS, WIDTH, ACTIVE = 8, 192, 2
NOISE = 0.1
"""Of each expert at first, in units of the root mean square of its matrices."""
STEPS, SEQUENCES, LENGTH = 16, 4, 96
HELD = 16
"""Rows that are not trained on."""
EXPERT_RATE, ROUTER_RATE = 5e-4, 2e-3
RECORD = "upcycling.json"


def token_rows(tokenizer: Any, texts: list[Path], count: int) -> torch.Tensor:
    """`count` rows [N, LENGTH] of tokens, one text after the other in turn; JSON lines are joined values."""
    streams = []
    for text in texts:
        content = text.read_text("utf-8", "replace")[: 40 * count * LENGTH // len(texts)]
        if text.suffix == ".jsonl":
            lines = content.splitlines()[:-1]
            content = "\n\n".join("\n".join(map(str, json.loads(line).values())) for line in lines)
        streams.append(torch.tensor(tokenizer(content)["input_ids"]))
    each = min(-(-count // len(texts)), *(len(stream) // LENGTH for stream in streams))
    parts = [stream[: each * LENGTH].view(each, LENGTH) for stream in streams]
    return torch.stack(parts, 1).flatten(0, 1)[:count]


def train(model: Any, rows: torch.Tensor) -> Iterator[float]:
    """Teach routers and experts the next token of rows [N, L]; yields the loss of each step."""
    routers = [p for name, p in model.named_parameters() if name.endswith("mlp.gate.weight")]
    experts = [p for name, p in model.named_parameters() if ".experts." in name]
    model.requires_grad_(False)
    for parameter in routers + experts:
        parameter.requires_grad_(True)
    groups = [{"params": experts, "lr": EXPERT_RATE}, {"params": routers, "lr": ROUTER_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 4) * (1 - step / STEPS))
    for part in torch.split(rows, SEQUENCES):
        states = model.model(part).last_hidden_state[:, :-1].flatten(0, 1)
        loss = nn.functional.cross_entropy(model.lm_head(states), part[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield float(loss.detach())


def loss_and_usage(model: Any, rows: torch.Tensor) -> tuple[float, dict[str, list[float]]]:
    """Mean loss in nats a token over rows [N, L], and what part of the tokens each expert gets, by layer."""
    counts: dict[str, torch.Tensor] = {}

    def count(name: str) -> Any:
        def after(_: nn.Module, __: Any, out: Any) -> None:
            counts[name] = counts.get(name, 0) + torch.bincount(out[2].flatten(), minlength=EXPERTS)

        return after

    gates = {name: module for name, module in model.named_modules() if type(module).__name__.endswith("TopKRouter")}
    handles = [gate.register_forward_hook(count(name)) for name, gate in gates.items()]
    losses = []
    with torch.no_grad():
        for part in torch.split(rows, SEQUENCES):
            logits = model(part).logits[:, :-1].flatten(0, 1)
            losses.append(nn.functional.cross_entropy(logits, part[:, 1:].flatten()))
    for handle in handles:
        handle.remove()
    total = rows.numel()
    return float(torch.stack(losses).mean()), {n: [round(c / total, 4) for c in k.tolist()] for n, k in counts.items()}


def differences(model: Any) -> dict[str, float]:
    """How far experts are from their mean, in units of it, by layer: gate, up and down together."""
    found = {}
    for layer in LAYERS:
        experts = model.model.layers[layer].mlp.experts
        weights = torch.cat([experts.gate_up_proj.flatten(1), experts.down_proj.flatten(1)], 1).detach()
        mean = weights.mean(0)
        found[str(layer)] = round(float((weights - mean).norm(dim=1).mean() / mean.norm()), 4)
    return found


def disturb(model: Any, noise: float) -> None:
    """Normal noise on each expert, in units of the root mean square of its layer's, so that they are not the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                spread = noise * parameter.square().mean().sqrt()
                parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(prog="python -m benchmarks.upcycling", description=__doc__)
    parser.add_argument("dense", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    dense: Any = AutoModelForCausalLM.from_pretrained(asked.dense, dtype=torch.float32)
    rows = token_rows(AutoTokenizer.from_pretrained(asked.dense), asked.texts, HELD + STEPS * SEQUENCES)
    held, rows = rows[:HELD], rows[HELD:]
    before, _ = loss_and_usage(dense, held)
    print(f"dense: {before:.4f}", flush=True)
    model = upcycled(dense, entering_of(dense, rows[:32], LAYERS), Shape(LAYERS, EXPERTS, WIDTH, ACTIVE))
    start, _ = loss_and_usage(model, held)
    if abs(start - before) > 1e-3:
        raise SystemExit(f"the loss is {start:.4f} and not {before:.4f}: this dense model is of another kind")
    disturb(model, NOISE)
    began = time.monotonic()
    for step, loss in enumerate(train(model, rows)):
        print(f"step {step}: {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    after, usage = loss_and_usage(model, held)
    record: Mapping[str, Any] = {
        "dense": asked.dense.name,
        "texts": [text.name for text in asked.texts],
        "loss": {"dense": round(before, 4), "upcycled": round(after, 4)},
        "differences": differences(model),
        "usage": usage,
        "seconds": round(time.monotonic() - began),
    }
    model.to(torch.bfloat16).save_pretrained(asked.out)
    for file in asked.dense.glob("tokenizer*.json"):
        shutil.copy(file, asked.out)
    (asked.out / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

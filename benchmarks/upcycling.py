"""A small mixture of experts that is a language model: a dense Llama, sparsely upcycled and trained a little on a CPU.

    python -m benchmarks.upcycling DENSE OUT --texts F.txt F.jsonl...      # SmolLM2-135M: a few minutes on 2 cores

In some layers the strongest neurons of the MLP become the experts, all of them the same at first; the others are the
shared expert (arXiv 2212.05055, 2401.06066). A router's rows are the centres of spherical k-means over what enters it,
so that experts are used unevenly and for a reason. So far the model computes what the dense one does, which is checked.
Then each expert gets noise of its own, and routers and experts, nothing else, learn the next token of the texts. The
record beside the model (upcycling.json) says what became of it.
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

LAYERS = (12, 17, 22, 27)
"""Late ones: what lies before the first is not trained through."""
EXPERTS, WIDTH, ACTIVE = 8, 192, 2
NOISE = 0.1
"""Of each expert at first, in units of the root mean square of its matrices."""
STEPS, SEQUENCES, LENGTH = 16, 4, 96
HELD = 16
"""Rows that are not trained on."""
EXPERT_RATE, ROUTER_RATE = 5e-4, 2e-3
SHARPNESS = 2.0
"""Standard deviation of the routers' logits over tokens before training."""
RECORD = "upcycling.json"


def upcycled(dense: Any, rows: torch.Tensor) -> Any:
    """A Qwen2-MoE, float32, that computes what the Llama `dense` does; routers are placed by tokens `rows` [N, L]."""
    from transformers import AutoModelForCausalLM, Qwen2MoeConfig

    own = dense.config
    shared = own.intermediate_size - WIDTH
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
        "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    config = Qwen2MoeConfig(
        **{name: getattr(own, name) for name in names},
        qkv_bias=False,
        num_experts=EXPERTS,
        num_experts_per_tok=ACTIVE,
        moe_intermediate_size=WIDTH,
        shared_expert_intermediate_size=shared,
        norm_topk_prob=True,
        mlp_only_layers=[layer for layer in range(own.num_hidden_layers) if layer not in LAYERS],
    )
    model: Any = AutoModelForCausalLM.from_config(config).float()
    weights = dense.state_dict()
    for layer, entering in _entering(dense, rows).items():
        head = f"model.layers.{layer}.mlp"
        gate, up, down = (weights.pop(f"{head}.{name}_proj.weight") for name in ("gate", "up", "down"))
        inner = nn.functional.silu(entering @ gate.t()) * (entering @ up.t())
        order = (inner.square().mean(0).sqrt() * down.norm(dim=0)).argsort(descending=True)
        strong, weak = order[:WIDTH], order[WIDTH:]
        weights[f"{head}.experts.gate_up_proj"] = torch.cat([gate[strong], up[strong]]).repeat(EXPERTS, 1, 1)
        weights[f"{head}.experts.down_proj"] = down[:, strong].repeat(EXPERTS, 1, 1)
        weights |= {
            f"{head}.shared_expert.gate_proj.weight": gate[weak],
            f"{head}.shared_expert.up_proj.weight": up[weak],
            f"{head}.shared_expert.down_proj.weight": 2 * down[:, weak],  # whose gate is the sigmoid of 0
            f"{head}.shared_expert_gate.weight": torch.zeros(1, own.hidden_size),
            f"{head}.gate.weight": router(entering),
        }
    model.load_state_dict(weights)
    return model


def router(entering: torch.Tensor, rounds: int = 20) -> torch.Tensor:
    """Rows [EXPERTS, D] whose products with `entering` [T, D] tell the clusters of spherical k-means apart."""
    unit = nn.functional.normalize(entering - entering.mean(0), dim=1)
    centres = unit[torch.randperm(len(unit), generator=torch.Generator().manual_seed(0))[:EXPERTS]]
    for _ in range(rounds):
        nearest = (unit @ centres.t()).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, unit)
        centres = nn.functional.normalize(torch.where(sums.any(1, keepdim=True), sums, centres), dim=1)
    logits = entering @ centres.t()
    return centres * (SHARPNESS / (logits - logits.mean(1, keepdim=True)).std())


def _entering(dense: Any, rows: torch.Tensor) -> dict[int, torch.Tensor]:
    """What enters the MLP of each of LAYERS [T, D]."""
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda _, inputs: found.update({layer: inputs[0].flatten(0, 1)})

    handles = [dense.model.layers[layer].mlp.register_forward_pre_hook(keep(layer)) for layer in LAYERS]
    with torch.no_grad():
        dense.model(rows)
    for handle in handles:
        handle.remove()
    return found


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


def disturb(model: Any) -> None:
    """Normal noise on each expert, so that they are not the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                spread = NOISE * parameter.square().mean().sqrt()
                parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


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
    model = upcycled(dense, rows[:32])
    start, _ = loss_and_usage(model, held)
    if abs(start - before) > 1e-3:
        raise SystemExit(f"the loss is {start:.4f} and not {before:.4f}: this dense model is of another kind")
    disturb(model)
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

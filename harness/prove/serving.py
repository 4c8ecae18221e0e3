"""Defects of one role's server: flags, and what stands before it."""

from __future__ import annotations

from harness.judging.verdict import SAME_MODEL
from harness.prove.entries import HARMLESS, Entry, doubted, fails, refused
from harness.prove.gateways import BUDGET, DROPPED

GATEWAYS = "harness.prove.gateways."

ENTRIES = (
    Entry(
        "kv-cache-dtype",
        "serving",
        "KV cache in 8 bits in one role only",
        refused("kv_cache_dtype"),
        flags=("--kv-cache-dtype", "fp8_e5m2"),
        avx512=True,
    ),
    Entry(
        "context-length",
        "serving",
        "half the context in one role only",
        refused("max_model_len"),
        flags=("--max-model-len", "1024"),
    ),
    Entry(
        "budget-cut",
        "serving",
        f"a gateway cuts every budget to {BUDGET} tokens",
        refused("cut the budgets"),
        flags=("--middleware", f"{GATEWAYS}CutBudget"),
    ),
    Entry(
        "stop-added",
        "serving",
        "a gateway ends every answer at its first line break",
        fails("length_ratio"),
        flags=("--middleware", f"{GATEWAYS}AddStop"),
    ),
    Entry(
        "answers-refused",
        "serving",
        f"a gateway refuses one request in {DROPPED}",
        doubted("cannot be used"),
        flags=("--middleware", f"{GATEWAYS}DropSome"),
    ),
    Entry(
        "reference-served",
        "serving",
        "the candidate's server runs the reference",
        doubted(SAME_MODEL),
        serves_reference=True,
    ),
    Entry("batch-size", "serving", "another batch size", HARMLESS, flags=("--max-num-seqs", "12")),
    Entry("seed", "serving", "another seed of the server", HARMLESS, flags=("--seed", "7")),
    Entry("tensor-parallel", "serving", "another tensor-parallel size", HARMLESS, needs="two GPUs"),
    Entry(
        "stop-in-thinking", "serving", "a stop string inside thinking", fails("accuracy"), needs="a model that thinks"
    ),
    Entry(
        "tool-calls-repeat",
        "serving",
        "calls of tools that repeat",
        fails("looped_rate"),
        needs="a model that calls tools, and a gateway that repeats them",
    ),
)

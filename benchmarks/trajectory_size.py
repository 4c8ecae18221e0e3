"""How many bytes a stored position takes, what rounding does to KL, how long comparing takes. CPU only, no server.

    python -m benchmarks.trajectory_size --out benchmarks/results/trajectory_size.json
    python -m benchmarks.trajectory_size --model DIR --text FILE …   # a real model's log-probabilities over real text

Without a model the distributions are synthetic: a Zipfian vocabulary whose logits are shifted by noise at every
position, from flat ones to ones that are nearly certain. The candidate is the reference with normal noise on its
logits, independent for each token: harder to store than a real candidate, whose bfloat16 logits often tie.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.endpoint.answers import Scores
from harness.serving.hardware import detect
from suites.divergence.kl_bounds import compare_scores
from suites.divergence.parquet_files import read_trajectory, rounded, write_trajectory

K = 64
PROMPT = list(range(100_000, 100_160))
"""Ids of a prompt, which every file holds as text: as many as the shipped prompts have on average."""
NOISES = (0.005, 0.02, 0.2)
"""Normal noise on the candidate's logits: below a noise floor, about one, and a 4-bit model's divergence."""
CHUNK = 64
"""Positions whose whole distributions are in memory at a time."""

Logits = NDArray[np.float32]


def synthetic(rows: int, vocabulary: int, seed: int) -> Iterator[tuple[Logits, NDArray[np.int32]]]:
    """(logits [CHUNK, vocabulary], the tokens that are there [CHUNK]), `rows` positions in all."""
    rng = np.random.default_rng(seed)
    prior = -np.log(np.arange(1, vocabulary + 1, dtype=np.float32))[rng.permutation(vocabulary)]
    for start in range(0, rows, CHUNK):
        shape = (min(CHUNK, rows - start), vocabulary)
        sharp = rng.uniform(0.8, 2.0, (shape[0], 1)).astype(np.float32)
        logits = sharp * (prior + 1.6 * rng.standard_normal(shape, dtype=np.float32))
        logits[np.arange(shape[0]), rng.integers(0, vocabulary, shape[0])] += rng.uniform(0, 18, shape[0])
        drawn = np.argmax(logits + rng.gumbel(size=shape).astype(np.float32), axis=1)
        yield logits, drawn.astype(np.int32)


def of_model(model: Path, texts: Iterable[Path], rows: int) -> Iterator[tuple[Logits, NDArray[np.int32]]]:
    """The same of a model over the beginning of each text, `rows` positions of each, 1,024 to a context."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    for text in texts:
        beginning = text.read_text("utf-8", "replace")[: 8 * rows]
        ids = torch.tensor(tokenizer(beginning)["input_ids"][: rows + 1])
        for start in range(0, len(ids) - 1, 1024):
            context = ids[start : start + 1025]
            with torch.inference_mode():
                logits = loaded(context[None, :-1]).logits[0].float().numpy()
            for row in range(0, len(logits), CHUNK):
                yield logits[row : row + CHUNK], context[1 + row : 1 + row + CHUNK].numpy().astype(np.int32)


def log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(shifted - np.log(total), np.float32)


def top(logprobs: Logits, tokens: NDArray[np.int32]) -> Scores:
    """What a server returns of whole distributions."""
    some = np.argpartition(-logprobs, K, axis=1)[:, :K]
    order = np.argsort(-np.take_along_axis(logprobs, some, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(some, order, axis=1).astype(np.int32)
    return Scores(tokens, logprobs[np.arange(len(ids)), tokens], ids, np.take_along_axis(logprobs, ids, axis=1))


def join(parts: list[Scores]) -> Scores:
    return Scores(*(np.concatenate(values) for values in zip(*(vars(p).values() for p in parts), strict=True)))


def scored(
    source: Iterable[tuple[Logits, NDArray[np.int32]]], seed: int
) -> tuple[Scores, dict[float, Scores], dict[float, float]]:
    """The reference's scores, those of a candidate at each noise, and their exact mean KL."""
    rng = np.random.default_rng(seed)
    reference: list[Scores] = []
    candidates: dict[float, list[Scores]] = {noise: [] for noise in NOISES}
    exact = dict.fromkeys(NOISES, 0.0)
    for logits, tokens in source:
        p = log_softmax(logits)
        reference.append(top(p, tokens))
        for noise in NOISES:
            q = log_softmax(logits + noise * rng.standard_normal(logits.shape, dtype=np.float32))
            candidates[noise].append(top(q, tokens))
            exact[noise] += float((np.exp(p, dtype=np.float64) * (p - q)).sum())
    rows = sum(part.token_ids.size for part in reference)
    return join(reference), {n: join(parts) for n, parts in candidates.items()}, {n: e / rows for n, e in exact.items()}


def measure(name: str, source: Iterable[tuple[Logits, NDArray[np.int32]]], lengths: list[int]) -> dict[str, Any]:
    """Bytes, rounding and seconds of one source."""
    reference, candidates, exact = scored(source, seed=1)
    n = reference.token_ids.size
    rounding = {}
    for noise, candidate in candidates.items():
        before, after = compare_scores(reference, candidate), compare_scores(rounded(reference), rounded(candidate))
        figures: dict[str, float] = {"kl_exact_mean": exact[noise]}
        for side in ("kl_lower", "kl_upper"):
            error = getattr(after, side) - getattr(before, side)
            figures |= {f"{side}_mean": float(getattr(before, side).mean()), f"{side}_bias": float(error.mean())}
            figures |= {f"{side}_mean_error": float(abs(error).mean()), f"{side}_max_error": float(abs(error).max())}
        rounding[str(noise)] = {key: float(f"{value:.3g}") for key, value in figures.items()}
    return {
        "name": name,
        "positions": n,
        "distinct_ids": int(np.unique(reference.top_ids).size),
        "mean_top_probability": round(float(np.exp(reference.top_logprobs[:, 0]).mean()), 3),
        "mean_listed_probability": round(float(np.exp(reference.top_logprobs).sum(axis=1).mean()), 3),
        "stored": [stored(reference, candidates[NOISES[-1]], length) for length in lengths if length <= n],
        "rounding_by_noise": rounding,
    }


def stored(reference: Scores, candidate: Scores, length: int) -> dict[str, float]:
    """Bytes a position and seconds of one core for a million of them, in files of `length` positions."""
    n = reference.token_ids.size // length * length
    size, seconds = {"reference": 0, "candidate": 0}, {"write": 0.0, "read": 0.0, "compare": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        write_trajectory(path, [1], reference)  # the first use of pyarrow loads half of it
        read_trajectory(path)
        for start in range(0, n, length):
            p, q = (
                rounded(Scores(*(values[start : start + length] for values in vars(scores).values())))
                for scores in (reference, candidate)
            )
            began = time.process_time()
            compared = compare_scores(p, q)
            seconds["compare"] += time.process_time() - began
            for role, scores, found in (("reference", p, None), ("candidate", q, compared)):
                began = time.process_time()
                write_trajectory(path, PROMPT, scores, "chat-en", found)
                seconds["write"] += (time.process_time() - began) / 2
                size[role] += path.stat().st_size
            began = time.process_time()
            read_trajectory(path)
            seconds["read"] += time.process_time() - began
    bytes_of = {f"bytes_a_position_{role}": round(value / n, 1) for role, value in size.items()}
    million = {f"core_seconds_{name}_a_million": round(value / n * 1e6, 1) for name, value in seconds.items()}
    return {"positions_a_file": length, **bytes_of, **million}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file; printed when absent")
    parser.add_argument("--model", type=Path, action="append", default=[], help="folder of a checkpoint (repeatable)")
    parser.add_argument("--text", type=Path, action="append", default=[], help="text for the models (repeatable)")
    parser.add_argument("--rows", type=int, default=4096, help="positions, of each text")
    parser.add_argument("--vocabulary", type=int, default=150_000, help="of the synthetic distributions")
    options = parser.parse_args()
    lengths = [1024, 4096]
    name = f"synthetic, {options.vocabulary:,} tokens"
    results = [measure(name, synthetic(options.rows, options.vocabulary, seed=0), lengths)]
    for model in options.model:
        for text in options.text:
            results.append(measure(f"{model.name}, {text.name}", of_model(model, [text], options.rows), lengths))
    about = {
        "command": " ".join(["python -m benchmarks.trajectory_size", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {name: metadata.version(name) for name in ("quantgate", "numpy", "pyarrow")},
    }
    found = json.dumps(about | {"top": K, "sources": results}, indent=1) + "\n"
    if options.out:
        options.out.write_text(found, "utf-8")
    else:
        print(found)


if __name__ == "__main__":
    main()

"""Pairs of samples of every suite, with the metrics that the suites write, and a run folder of them all."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from report_runs import SEALED, manifest, sample

from harness.contract.pairs import Pair
from harness.contract.policy import SealedPolicy
from harness.contract.samples import Item, Role, Sample
from harness.runs.folder import RunFolder

Metrics = Mapping[str, float]


def pair(
    suite: str,
    task: str,
    item: str = "0000",
    *,
    scores: tuple[float | None, float | None] = (None, None),
    metrics: tuple[Metrics, Metrics] = ({}, {}),
    role: Role = "candidate",
    **both: object,
) -> Pair:
    """Two samples that can be compared; what is a tuple is the reference's and the candidate's."""
    made = [
        sample(name, suite, task, item, score=score, metrics=dict(found), **both)
        for name, score, found in zip(("reference", role), scores, metrics, strict=True)
    ]
    return Pair(*made)


def ruler(rng: random.Random, lengths: Iterable[int] = (4096, 8192, 16384, 32768), count: int = 10) -> Iterator[Pair]:
    for task in ("niah_single_1", "niah_multikey_3", "vt", "cwe", "fwe", "qa_1"):
        for length in lengths:
            for number in range(count):
                right = float(rng.random() < 0.95)
                lost = task == "niah_multikey_3" and length > 8000 and rng.random() < 0.6
                yield pair("ruler", f"{task}@{length}", f"{number:04d}", scores=(right, 0.0 if lost else right))


def needle(rng: random.Random) -> Iterator[Pair]:
    for length in (4096, 32768, 131072):
        for depth in (0, 250, 500, 750, 1000):
            for number in range(3):
                damaged = length > 100_000 and 0 < depth < 1000 and rng.random() < 0.6
                yield pair("needle", str(length), f"d{depth:04d}-{number:02d}", scores=(1.0, float(not damaged)))


def compared(rng: random.Random, positions: int = 300, scale: float = 1.0) -> dict[str, float]:
    """What a compared role's sample of the divergence suite says."""
    upper = positions * 0.02 * scale * rng.uniform(0.5, 2)
    flips = float(round(positions * 0.04 * scale))
    return {
        "positions": float(positions),
        "kl_lower_sum": 0.9 * upper,
        "kl_upper_sum": upper,
        "kl_lower_max": 1.2 * scale,
        "kl_upper_max": 1.5 * scale,
        "flips": flips,
        "confident_flips": flips // 4,
        "captured_mass_sum": 0.985 * positions,
        "delta_p_sum": -0.004 * positions * scale,
        "delta_p_squared_sum": 0.0016 * positions * scale,
        "nll_reference_sum": 0.4 * positions,
        "nll_candidate_sum": (0.4 + 0.01 * scale) * positions,
        **{
            f"{name}@0-1k": value
            for name, value in (
                ("positions", float(positions)),
                ("kl_lower_sum", 0.9 * upper),
                ("kl_upper_sum", upper),
                ("flips", flips),
                ("confident_flips", flips // 4),
            )
        },
    }


def divergence(rng: random.Random, role: Role = "candidate", scale: float = 1.0) -> Iterator[Pair]:
    for kind in ("chat", "code", "reasoning", "tools"):
        for language in ("en", "ja", "zh"):
            name = f"{kind}-{language}"
            found = compared(rng, rng.randint(100, 300), scale)
            yield pair("divergence", name, f"{name}-01", metrics=({}, found), role=role)


def decoding(rng: random.Random, role: Role = "candidate", chance: float = 0.01) -> Iterator[Pair]:
    for kind in ("chat-en", "chat-ja", "code-en"):
        for number in range(6):
            first = next((n for n in range(256) if rng.random() < chance), 256)
            parted = float(first < 256)
            found = {"first_divergence": float(first), "diverged": parted, "decode_positions": first + parted}
            yield pair("decoding", kind, f"{kind}-{number:02d}", metrics=({}, found), role=role)


def termination(rng: random.Random) -> Iterator[Pair]:
    def metrics(longer: float, right: float) -> dict[str, float]:
        tokens = rng.uniform(500, 6000) * longer
        markers = float(round(tokens * 0.008 * longer))
        return {
            "unterminated": float(rng.random() < 0.03 * longer),
            "looped": float(rng.random() < 0.02 * longer),
            "uncommitted": float(rng.random() < 0.03 * longer),
            "answered": 1.0,
            "closed": 1.0,
            "thinking_chars": 4 * tokens,
            "thinking_tokens": tokens,
            "markers": markers,
            "markers_per_1k_tokens": 1000 * markers / tokens,
            **{f"score@{budget}": right if tokens < budget else 0.0 for budget in (4096, 8192, 16384)},
        }

    for task in ("easy-en", "easy-ja", "easy-zh", "hard-en", "hard-ja", "hard-zh"):
        for number in range(12):
            scores = float(rng.random() < 0.8), float(rng.random() < 0.75)
            found = metrics(1.0, scores[0]), metrics(1.2, scores[1])
            yield pair("termination", task, f"{number:04d}", scores=scores, metrics=found)


def language(rng: random.Random) -> Iterator[Pair]:
    def metrics(asked: str, damage: float) -> dict[str, float]:
        wrong = rng.random() < damage
        said = "en" if wrong else asked
        kana, han = {"ja": (0.6, 0.38), "zh": (0.0, 0.98), "en": (0.0, 0.0)}[said]
        bins = {"kana": kana, "han": han, "latin": 1 - kana - han, "hangul": 0.0, "cyrillic": 0.0, "arabic": 0.0}
        mixed = float(rng.random() < damage)
        return {
            "wrong_language": float(wrong),
            **{f"{part}_{script}": share for part in ("answer", "reasoning") for script, share in bins.items()},
            **({"wrong_reasoning_language": float(wrong)} if asked == "ja" else {}),
            "mixed_words": mixed,
            "broken_characters": 0.0,
            "garbled": mixed,
        }

    for task in ("arithmetic-en", "arithmetic-ja", "facts-zh", "cross-en-ja", "thinking-ja"):
        for number in range(20):
            found = metrics(task[-2:], 0.01), metrics(task[-2:], 0.08)
            scores = float(rng.random() < 0.9), float(rng.random() < 0.88)
            yield pair("language", task, f"{number:04d}", scores=scores, metrics=found)


def drafted(rng: random.Random, chance: float) -> dict[str, float]:
    """What one answer adds to a server's counters, with drafts of two tokens."""
    drafts = rng.randint(80, 200)
    first, second = round(drafts * chance), round(drafts * chance**2)
    counts = {"drafts": drafts, "draft_tokens": 2 * drafts, "accepted_tokens": first + second}
    counts |= {"accepted_pos_0": first, "accepted_pos_1": second}
    return {name: float(count) for name, count in counts.items()} | {"accepted_length": 1 + (first + second) / drafts}


def speculative(rng: random.Random) -> Iterator[Pair]:
    for task in ("chat-en", "chat-ja", "code-en"):
        for number in range(4):
            found = drafted(rng, 0.8), drafted(rng, 0.7)
            yield pair("speculative", task, f"{task}-{number:02d}", metrics=found)


def footprint() -> Pair:
    reference = {
        "bytes": 15_231_271_864.0,
        "parameters": 7_615_616_512.0,
        "bits_per_weight": 16.0,
        "draft_bytes": 0.0,
        "gpus": 1.0,
        "kv_tokens": 412_304.0,
        "kv_bytes": 23_622_320_128.0,
        "load_bytes": 15_332_000_000.0,
        "gpus_24gib": 4.0,
        "gpus_80gib": 1.0,
    }
    smaller = {"bytes": 5_571_000_000.0, "bits_per_weight": 5.85, "load_bytes": 5_600_000_000.0, "gpus_24gib": 2.0}
    return pair("footprint", "checkpoint", "whole", metrics=(reference, reference | smaller), finish_reason=None)


def speed(rng: random.Random) -> Iterator[Pair]:
    for concurrency, base in ((1, 92.0), (8, 640.0), (32, 1810.0)):
        for number in range(5):
            found = [
                {
                    "tokens_per_second": base * faster * rng.uniform(0.97, 1.03),
                    "ttft_p50_ms": 40.0 * concurrency**0.5 / faster * rng.uniform(0.95, 1.05),
                    "ttft_p99_ms": 90.0 * concurrency**0.5 / faster * rng.uniform(0.9, 1.1),
                }
                for faster in (1.0, 1.6)
            ]
            yield pair("speed", f"c{concurrency}", f"r{number:02d}", metrics=(found[0], found[1]), finish_reason=None)


def swebench(rng: random.Random) -> Iterator[Pair]:
    def metrics(longer: float) -> dict[str, float]:
        steps, errors = float(round(rng.uniform(20, 60) * longer)), float(rng.random() < 0.2 * longer)
        return {
            "steps": steps,
            "cut_steps": errors,
            "format_errors": errors,
            "format_error_rate": errors / steps,
            "unsubmitted": errors,
            "agent_seconds": 20 * steps,
            "grading_seconds": 40.0,
            "tests_timed_out": 0.0,
            "exit LimitsExceeded" if errors else "exit Submitted": 1.0,
        }

    for number in range(24):
        scores = float(rng.random() < 0.6), float(rng.random() < 0.5)
        found = metrics(1.0), metrics(1.3)
        name = f"{('django', 'sympy', 'astropy')[number % 3]}__project-{number}"
        yield pair("swebench", "instances", name, scores=scores, metrics=found)


def every_suite(seed: int = 0) -> list[Pair]:
    """Pairs of all suites with metrics, those of the noise floor included."""
    rng = random.Random(seed)
    noise = [*divergence(rng, "noise", 0.02), *decoding(rng, "noise", 0.002)]
    suites = (ruler, needle, divergence, decoding, termination, language, speculative, speed, swebench)
    return [*(made for suite in suites for made in suite(rng)), footprint(), *noise]


def store(path: Path, pairs: Iterable[Pair], sealed: SealedPolicy = SEALED) -> RunFolder:
    """A run folder that holds these pairs, and their items."""
    samples: dict[str, dict[object, Sample]] = {}
    for one in (one for made in pairs for one in made):
        samples.setdefault(one.suite, {})[one.key] = one
    folder, facts = RunFolder(path), manifest(sealed, {})
    folder.create(facts, sealed)
    for suite, found in samples.items():
        log = folder.log(suite)
        for one in found.values():
            log.append(one)
        log.close()
        references = [one for one in found.values() if one.role == "reference"]
        items = [
            Item(**one.model_dump(include={"task", "item", "repeat", "prompt_sha256"}), prompt=[]) for one in references
        ]
        facts.items_sha256[suite] = folder.write_items(suite, items)
        for one in references:
            name = f"{suite}/{one.task}"
            facts.planned[name] = facts.planned.get(name, 0) + 1
    folder.write_manifest(facts)
    return folder

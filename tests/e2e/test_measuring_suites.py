"""Footprint, speed and speculative against one real server: real counters, the real benchmark, real memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.endpoint import Endpoint
from harness.hardware import detect
from harness.measured import measure_server, spec_counters
from harness.models import describe, resolve_model
from harness.policy import Requests, Sampling, Serving
from harness.progress import Meter
from harness.samples import Sample
from harness.serving import SERVED_NAME, Server, plan_servers, serve
from harness.steady import read_after, read_counters, require_steady
from suites.base import Suite
from suites.footprint import Footprint, FootprintConfig
from suites.speculative import Speculative, SpeculativeConfig
from suites.speed import Speed, SpeedConfig

pytestmark = pytest.mark.e2e

SAMPLING = Sampling(temperature=0.0, max_tokens=48)
DRAFTS = '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}'


async def measure(server: Server, model: Path, folder: Path) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """The samples of the three suites, and what the server's counters say of the whole of it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    load = SpeedConfig(
        concurrency=(1, 4), rounds=1, waves=2, warmups=1, input_tokens=160, output_tokens=24, timeout_seconds=300
    )
    suites: list[Suite] = [
        Footprint(FootprintConfig(kv_gib=1), SAMPLING, folder),
        Speculative(SpeculativeConfig(prompts=6), SAMPLING, folder),
        Speed(load, SAMPLING, folder),
    ]
    found: dict[str, list[Sample]] = {}
    async with Endpoint(server.plan.url, SERVED_NAME, Requests(), SAMPLING) as endpoint:
        endpoint.tokenizer_path = str(model)
        before = await read_counters(endpoint)
        endpoint.measured = await measure_server(endpoint, describe("demo", model), server.log)
        for suite in suites:
            for item in suite.items(tokenizer):
                found.setdefault(suite.name, []).append(await suite.answer(item, "reference", endpoint))
            if suite.name == "speculative":
                drafted = spec_counters(await endpoint.metrics())
        assert drafted["draft_tokens"] == sum(s.metrics["draft_tokens"] for s in found["speculative"])
        assert drafted["accepted_tokens"] == sum(s.metrics.get("accepted_tokens", 0) for s in found["speculative"])
        return found, await read_after(endpoint, before)


def test_one_server_is_measured_by_all_three(tmp_path: Path) -> None:
    serving = Serving(
        max_model_len=1024,
        dtype="bfloat16",
        kv_cache_memory_gib=1,
        max_num_seqs=4,
        enforce_eager=True,
        extra_args=("--speculative-config", DRAFTS),
    )
    model = resolve_model("demo")
    plans = plan_servers(serving, {"reference": model}, detect(), "measured")
    with serve(plans, tmp_path / "logs", 300, Meter("servers", 1)) as (server,):
        found, after = asyncio.run(measure(server, model, tmp_path / "speed"))
    require_steady({"reference": after})
    assert after["run.budget"].startswith("arrives as asked")  # the benchmark's requests are among those we asked

    (whole,) = found["footprint"]
    measured = whole.metrics
    assert measured["bits_per_weight"] == 16 and measured["kv_bytes"] == 2**30
    # 30 layers x 3 KV heads x 64 x 2 (K and V) x 2 bytes for each token, in whole blocks
    assert measured["kv_tokens"] == pytest.approx(2**30 / 23_040, rel=0.02)
    assert measured["resident_bytes"] > measured["bytes"]
    assert measured["gpus_24gib"] == 1

    assert len(found["speculative"]) == 6 and sum(s.metrics["drafts"] for s in found["speculative"]) > 0
    for sample in found["speculative"]:
        lengths = [sample.metrics.get(f"accepted_pos_{p}", 0.0) for p in range(3)]
        assert lengths == sorted(lengths, reverse=True) and sum(lengths) == sample.metrics["accepted_tokens"]
        assert sample.metrics["draft_tokens"] <= 3 * sample.metrics["drafts"]
        assert 1 <= sample.metrics.get("accepted_length", 1.0) <= 4

    assert [(s.task, s.item) for s in found["speed"]] == [("c1", "r00"), ("c4", "r00")]
    for sample, requests in zip(found["speed"], (2, 8), strict=True):
        figures = sample.metrics
        assert (figures["completed"], figures["failed"], figures["output_tokens"]) == (requests, 0, 24 * requests)
        assert figures["input_tokens"] == pytest.approx(160 * requests, rel=0.05)
        assert 1 < figures["tokens_per_second"] < figures["total_tokens_per_second"]
        assert 0 < figures["ttft_p50_ms"] <= figures["ttft_p99_ms"] and figures["tpot_p50_ms"] > 0

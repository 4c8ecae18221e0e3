"""Footprint: what was measured becomes one sample, and how many GPUs hold a model is a rule that can be checked."""

from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, ask
from hypothesis import given
from hypothesis import strategies as st
from verdict_samples import decided

from harness.contract.samples import Role, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Endpoint, EndpointError
from harness.serving.hardware import GIB
from suites.footprint import GPU_SIZES, MOST_GPUS, OVERHEAD_GIB, USABLE, Footprint, FootprintConfig, gpus_needed

MEASURED = {"bytes": 15.0 * GIB, "parameters": 8e9, "bits_per_weight": 16.0, "draft_bytes": 0.0, "kv_bytes": 8.0 * GIB}


def footprint(**config: Any) -> Footprint:
    return Footprint(FootprintConfig(**config), Sampling(), Path("unused"))


def answer(server: FakeServer, measured: dict[str, float], role: Role = "candidate", **config: Any) -> Sample:
    suite = footprint(**config)
    (item,) = suite.items(None)

    async def run(endpoint: Endpoint) -> Sample:
        endpoint.measured = measured
        return await suite.answer(item, role, endpoint)

    return ask(server.url, run)


@pytest.mark.parametrize(
    ("weights", "kv", "gpu", "count"),
    [
        # USABLE x memory - OVERHEAD_GIB is the room of one GPU: 18.6 GiB of 24, 40.2 of 48, 69 of 80, 123.9 of 141.
        (15, 0, 24, 1),
        (18.6, 0, 24, 1),
        (18.7, 0, 24, 2),
        (15, 8, 24, 2),  # an 8B model in bf16
        (15, 8, 48, 1),
        (131, 20, 80, 4),  # a 70B model in bf16: 151 / 2 are too many for 69
        (131, 20, 141, 2),
        (131, 20, 192, 1),
        (35, 20, 80, 1),  # the same at 4 bits
        (671, 40, 141, 8),  # DeepSeek-V3 in fp8
        (671, 40, 192, 8),  # 711 / 4 = 177.8 against 169.8
        (671, 40, 24, 64),
        (1400, 40, 24, None),
        (0, 0, 24, 1),
    ],
)
def test_gpus_needed_is_known_for_known_models(weights: float, kv: float, gpu: float, count: int | None) -> None:
    assert gpus_needed(weights * GIB, kv * GIB, gpu * GIB) == count


@given(st.floats(0, 3000), st.floats(0, 500), st.sampled_from([*GPU_SIZES, 2, 8, 12]))
def test_the_smallest_power_of_two_that_fits_is_taken(weights: float, kv: float, gpu: float) -> None:
    def fits(count: int) -> bool:
        return (weights + kv) / count + OVERHEAD_GIB <= USABLE * gpu

    found = gpus_needed(weights * GIB, kv * GIB, gpu * GIB)
    brute = next((2**k for k in range(7) if fits(2**k)), None)
    if abs((weights + kv) / (found or MOST_GPUS) + OVERHEAD_GIB - USABLE * gpu) > 1e-6:  # not at the very edge
        assert found == brute
    assert found is None or found in (1, 2, 4, 8, 16, 32, 64)


@given(st.floats(0, 4000), st.floats(0, 1000))
def test_a_larger_model_or_a_smaller_gpu_never_needs_fewer(weights: float, more: float) -> None:
    def count(weight: float, gpu: float) -> int:
        return gpus_needed(weight * GIB, 4 * GIB, gpu * GIB) or 2 * MOST_GPUS

    assert [count(weights, size) for size in GPU_SIZES] == sorted((count(weights, s) for s in GPU_SIZES), reverse=True)
    assert all(count(weights + more, size) >= count(weights, size) for size in GPU_SIZES)


def test_there_is_one_item_and_it_asks_nothing(server: FakeServer) -> None:
    (item,) = footprint().items(None)
    assert (item.task, item.item, item.prompt) == ("checkpoint", "whole", [])
    sample = answer(server, MEASURED)
    assert server.posts == [] and (sample.score, sample.error, sample.finish_reason) == (None, None, None)
    assert sample.prompt_sha256 == item.prompt_sha256 and footprint().context_needed == 1


def test_a_sample_has_what_was_measured_and_the_gpus(server: FakeServer) -> None:
    found = answer(server, MEASURED).metrics
    assert {name: found[name] for name in MEASURED} == MEASURED
    assert {size: found[f"gpus_{size}gib"] for size in GPU_SIZES} == {24: 2, 48: 1, 80: 1, 96: 1, 141: 1, 192: 1}


def test_the_kv_room_asked_for_comes_before_that_of_the_run(server: FakeServer) -> None:
    assert answer(server, MEASURED, kv_gib=0).metrics["gpus_24gib"] == 1
    assert answer(server, MEASURED, kv_gib=200).metrics["gpus_24gib"] == 16
    without = {name: value for name, value in MEASURED.items() if name != "kv_bytes"}
    assert not [name for name in answer(server, without).metrics if name.startswith("gpus_")]
    assert answer(server, without, kv_gib=1).metrics["gpus_24gib"] == 1


def test_weights_that_grow_when_they_are_loaded_count_as_they_are_loaded(server: FakeServer) -> None:
    loaded = MEASURED | {"load_bytes": 30.0 * GIB, "gpus": 4.0}
    assert answer(server, loaded).metrics["gpus_80gib"] == 2
    assert answer(server, MEASURED | {"load_bytes": 14.0 * GIB}).metrics["gpus_24gib"] == 2  # not below the files


@pytest.mark.parametrize("measured", [{}, {"bytes": 0.0, "kv_bytes": 1.0}, {"kv_bytes": 1.0}])
def test_an_unknown_size_is_an_error_of_its_own(server: FakeServer, measured: dict[str, float]) -> None:
    # "refused": the runner writes such a sample at once and asks on.
    with pytest.raises(EndpointError, match=r"^refused: the size of the checkpoint is not known"):
        answer(server, measured)


def test_the_check_of_bytes_reads_the_sample(server: FakeServer) -> None:
    both = [answer(server, MEASURED, "reference"), answer(server, MEASURED | {"bytes": 4.5 * GIB})]
    check = {"metric": "bytes_ratio", "on": "footprint"}
    assert decided(check | {"max": 0.3}, both).verdict == "PASS"
    assert decided(check | {"max": 0.29}, both).verdict == "FAIL"

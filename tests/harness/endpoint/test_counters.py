"""What is measured of a checkpoint and its server without asking: sizes, KV room, counters of drafts."""

from typing import Any

import pytest
from fake_server import FakeServer, FakeVllm, Reply, ask, server_info
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.model_facts import ModelFacts
from harness.endpoint.client import EndpointError
from harness.endpoint.counters import counter, measure_server, spec_counters, spec_metrics

FACTS = ModelFacts(
    name="a/b",
    path="/models/b",
    bytes=5_000,
    parameters=9_000,
    bits_per_weight=4.4,
    draft_bytes={"BF16": 700, "F32": 44},
)
# Labels as vLLM 0.32 writes them on CPU (the others left out); 0.26 on a GPU has the same ones.
CACHE = (
    'block_size="128",cache_dtype="auto",enable_prefix_caching="True",engine="{engine}",kv_cache_memory_bytes="{bytes}"'
)
CACHE += ',kv_cache_size_tokens="{tokens}",num_gpu_blocks="364"'


def cache(engine: int = 0, memory: str = "1073741824", tokens: str = "46592") -> str:
    labels = CACHE.format(engine=engine, bytes=memory, tokens=tokens)
    return f"vllm:cache_config_info{{{labels}}} 1.0\n"


def measured(server: FakeServer, metrics: str = "", facts: ModelFacts = FACTS, **parallel: Any) -> dict[str, float]:
    vllm = FakeVllm()
    vllm.metrics = metrics or cache()
    vllm.info = server_info(parallel_config={"pipeline_parallel_size": 1} | parallel)
    server.handler = vllm
    return ask(server.url, lambda endpoint: measure_server(endpoint, facts))


def test_sizes_are_those_of_the_checkpoints_files(server: FakeServer) -> None:
    found = measured(server)
    expected = {"bytes": 5000.0, "parameters": 9000.0, "bits_per_weight": 4.4, "draft_bytes": 744.0, "gpus": 1.0}
    assert found == expected | {"kv_tokens": 46592.0, "kv_bytes": 2.0**30}
    assert all(isinstance(value, float) for value in found.values())


def test_a_checkpoint_that_is_not_on_this_machine_has_no_size(server: FakeServer) -> None:
    found = measured(server, facts=ModelFacts(name="a/b", path=""))
    assert found == {"gpus": 1.0, "kv_tokens": 46592.0, "kv_bytes": 2.0**30}


def test_kv_room_is_that_of_all_engines_and_gpus(server: FakeServer) -> None:
    both = cache(0) + cache(1, memory="2147483648", tokens="100")
    found = measured(server, both, tensor_parallel_size=4, pipeline_parallel_size=2)
    assert (found["gpus"], found["kv_tokens"], found["kv_bytes"]) == (8.0, 46692.0, 8 * 3 * 2.0**30)


def test_kv_room_of_an_older_server_is_its_blocks(server: FakeServer) -> None:
    found = measured(server, cache(memory="None", tokens="None"))
    assert found["kv_tokens"] == 364 * 128 and "kv_bytes" not in found


@pytest.mark.parametrize("said", ["-5", "1e400", "nan", "9" * 40, "", "１２"])
def test_a_label_that_is_no_count_is_not_believed(server: FakeServer, said: str) -> None:
    found = measured(server, cache(memory=said, tokens=said))
    assert found["kv_tokens"] == 364 * 128 and "kv_bytes" not in found


@pytest.mark.parametrize("size", [None, 0, -1, "2", 1e9, [2]])
def test_gpus_that_a_server_does_not_tell_leave_the_kv_bytes_unknown(server: FakeServer, size: Any) -> None:
    found = measured(server, tensor_parallel_size=size)
    assert "gpus" not in found and "kv_bytes" not in found and found["kv_tokens"] == 46592.0


def test_a_server_that_keeps_its_flags_shut_is_measured_all_the_same(server: FakeServer) -> None:
    vllm = FakeVllm()
    vllm.metrics, vllm.info = cache(), None
    server.handler = vllm
    found = ask(server.url, lambda endpoint: measure_server(endpoint, FACTS))
    assert found["kv_tokens"] == 46592.0 and not {"gpus", "kv_bytes"} & found.keys()


def test_without_counters_nothing_is_known_and_without_a_server_it_is_an_error(server: FakeServer) -> None:
    assert not {"kv_tokens", "kv_bytes"} & measured(server, "# nothing\n").keys()
    server.script(Reply({}, 500))
    with pytest.raises(EndpointError, match="server:"):
        ask(server.url, lambda endpoint: measure_server(endpoint, FACTS))


# -- counters ----------------------------------------------------------------------------------------------------


def drafted(drafts: float, tokens: float, accepted: float, *at: float, engine: str = "0") -> dict[str, Any]:
    """Counters as Endpoint.metrics gives them."""
    found: dict[str, Any] = {"vllm:spec_decode_num_accepted_tokens_per_pos_total": []}
    for name, value in (("drafts", drafts), ("draft_tokens", tokens), ("accepted_tokens", accepted)):
        found[f"vllm:spec_decode_num_{name}_total"] = [({"engine": engine}, float(value))]
    for position, value in enumerate(at):
        labels = {"engine": engine, "position": str(position)}
        found["vllm:spec_decode_num_accepted_tokens_per_pos_total"].append((labels, float(value)))
    return found


def test_drafts_are_counted_over_all_engines() -> None:
    one, two = drafted(7, 21, 13, 5, 4, 4), drafted(3, 9, 2, 2, 0, 0, engine="1")
    found = spec_counters({name: one[name] + two[name] for name in one})
    assert found == {
        "drafts": 10.0,
        "draft_tokens": 30.0,
        "accepted_tokens": 15.0,
        "accepted_pos_0": 7.0,
        "accepted_pos_1": 4.0,
        "accepted_pos_2": 4.0,
    }


def test_a_server_that_drafts_nothing_has_no_counters() -> None:
    assert spec_counters({}) == {} and spec_metrics({}, {}) == {"drafts": 0.0, "draft_tokens": 0.0}
    for broken in (float("nan"), float("inf"), -1.0):
        assert spec_counters(drafted(broken, 21, 13)) == {}
        assert counter({"x": [({}, 1.0), ({}, broken)]}, "x") is None
    assert counter({}, "x") is None and counter({"x": []}, "x") is None


def test_positions_that_cannot_be_are_left_out() -> None:
    metrics = drafted(7, 21, 13, 5)
    rows = metrics["vllm:spec_decode_num_accepted_tokens_per_pos_total"]
    rows += [({"position": p}, 1.0) for p in ("-1", "64", "x", "", "1e9")] + [({}, 1.0), ({"position": "1"}, -2.0)]
    assert {name for name in spec_counters(metrics) if name.startswith("accepted_pos")} == {"accepted_pos_0"}


def test_what_was_drafted_between_two_readings() -> None:
    before, after = spec_counters(drafted(7, 21, 13, 5, 4, 4)), spec_counters(drafted(17, 51, 28, 14, 8, 6))
    assert spec_metrics(before, after) == {
        "drafts": 10.0,
        "draft_tokens": 30.0,
        "accepted_tokens": 15.0,
        "accepted_pos_0": 9.0,
        "accepted_pos_1": 4.0,
        "accepted_pos_2": 2.0,
        "accepted_length": 2.5,
    }
    assert spec_metrics(after, after) == dict.fromkeys(after, 0.0)  # nothing drafted: no length
    assert spec_metrics({}, after)["accepted_length"] == 1 + 28 / 17  # counters that begin with the first draft


def test_counters_that_fall_are_a_restart() -> None:
    before = spec_counters(drafted(7, 21, 13, 5))
    for after in (drafted(6, 21, 13, 5), drafted(9, 27, 12, 5), drafted(9, 27, 15, 4), drafted(9, 27, 15)):
        with pytest.raises(ValueError, match="fell"):
            spec_metrics(before, spec_counters(after))


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=5))
def test_lengths_of_stretches_add_up_to_that_of_the_whole(stretches: list[list[int]]) -> None:
    """Each number is how many of a draft's three tokens are accepted: always its first ones."""
    readings, drafts = [spec_counters(drafted(0, 0, 0, 0, 0, 0))], []
    for stretch in stretches:
        drafts += stretch
        at = [sum(n > position for n in drafts) for position in range(3)]
        readings.append(spec_counters(drafted(len(drafts), 3 * len(drafts), sum(drafts), *at)))
    for stretch, before, after in zip(stretches, readings[:-1], readings[1:], strict=True):
        found = spec_metrics(before, after)
        lengths = [1 + n for n in stretch]
        assert found.get("accepted_length") == (pytest.approx(sum(lengths) / len(lengths)) if lengths else None)
        assert sum(found[f"accepted_pos_{position}"] for position in range(3)) == found["accepted_tokens"]

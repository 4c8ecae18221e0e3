"""A server that restarts, changes or cuts budgets in the middle of a run is seen, and one that does not is not."""

from collections.abc import Callable
from typing import Any

import pytest
from fake_server import FakeServer, FakeVllm, Reply, ask, score_reply

from harness.contract.errors import NotComparable
from harness.endpoint.client import Endpoint, EndpointError
from harness.parity import steadiness as steady
from harness.parity.server_config import UNKNOWN
from harness.parity.steadiness import read_after, read_counters, require_steady

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "SETTLE_SECONDS", 0.0)


def run(
    server: FakeServer, vllm: FakeVllm, between: Callable[[], Any] = lambda: None, budget: int = 100
) -> dict[str, str]:
    """Two answers of `budget` tokens with `between` in the middle, and what is read after them."""
    server.handler = vllm

    async def action(endpoint: Endpoint) -> dict[str, str]:
        await endpoint.render(HELLO)  # before the run: counted by both sides, and not of it
        before = await read_counters(endpoint)
        await endpoint.chat(HELLO, budget)
        between()
        await endpoint.chat(HELLO, budget)
        return await read_after(endpoint, before)

    return ask(server.url, action)


def changing(vllm: FakeVllm, **change: Any) -> Callable[[], None]:
    return lambda: vars(vllm).update(change)


def refusal(facts: dict[str, str]) -> str:
    with pytest.raises(NotComparable) as caught:
        require_steady({"reference": {"run.restarts": "none"}, "candidate": facts})
    assert "the candidate server" in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_steady_run(server: FakeServer) -> None:
    found = run(server, FakeVllm())
    assert found == {
        "run.restarts": "none",
        "run.fingerprints": "1: vllm-0.32.0-abc",
        "run.preemptions": "0",
        "run.budget": "arrives as asked (200 tokens in 2 requests)",
    }
    require_steady({"reference": found, "candidate": found})
    require_steady({})


def test_preemptions_are_shown_and_no_reason_to_refuse(server: FakeServer) -> None:
    vllm = FakeVllm()
    found = run(server, vllm, changing(vllm, preemptions=9))
    assert found["run.preemptions"] == "7"
    require_steady({"candidate": found})


# -- restarts ----------------------------------------------------------------------------------------------------


def test_a_restart_is_a_new_start_time(server: FakeServer) -> None:
    vllm = FakeVllm()
    found = run(server, vllm, changing(vllm, started=1795308999.5, requests=0, budget=0.0, preemptions=0))
    assert found["run.restarts"] == "restarted"
    assert found["run.preemptions"] == found["run.budget"] == UNKNOWN
    assert "restarted in the middle of the run" in refusal(found)


def test_without_a_start_time_a_restart_is_a_counter_that_falls(server: FakeServer) -> None:
    vllm = FakeVllm()
    vllm.started = None
    assert run(server, vllm)["run.restarts"] == UNKNOWN
    assert run(server, vllm, changing(vllm, requests=0))["run.restarts"] == "restarted"


def test_a_start_time_that_is_no_time_is_not_readable(server: FakeServer) -> None:
    vllm = FakeVllm()
    for value in (float("nan"), float("inf")):
        vllm.started = value
        assert run(server, vllm)["run.restarts"] == UNKNOWN


def test_a_second_fingerprint_is_refused(server: FakeServer) -> None:
    vllm = FakeVllm()
    found = run(server, vllm, changing(vllm, fingerprint="vllm-0.32.0-def"))
    assert found["run.fingerprints"] == "2: vllm-0.32.0-abc, vllm-0.32.0-def"
    assert "changed its settings" in refusal(found) and "vllm-0.32.0-def" in refusal(found)


def test_a_server_without_fingerprints_is_steady(server: FakeServer) -> None:
    vllm = FakeVllm()
    vllm.fingerprint = None
    found = run(server, vllm)
    assert found["run.fingerprints"] == UNKNOWN
    require_steady({"candidate": found})


def test_a_server_that_sends_a_new_fingerprint_each_time_fills_no_memory(server: FakeServer) -> None:
    vllm, count = FakeVllm(), 0

    def answer(path: str, body: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        vllm.fingerprint = f"{count}\n" * 1000
        return vllm(path, body)

    server.handler = answer

    async def action(endpoint: Endpoint) -> dict[str, str]:
        before = await read_counters(endpoint)
        for _ in range(20):
            await endpoint.chat(HELLO, 8)
        assert len(endpoint.fingerprints) == 8 and max(map(len, endpoint.fingerprints)) <= 100
        return await read_after(endpoint, before)

    found = ask(server.url, action)
    assert found["run.fingerprints"].startswith("8: sha256 ") and found["run.fingerprints"].isprintable()
    refusal(found)


# -- budgets -----------------------------------------------------------------------------------------------------


def test_a_budget_that_the_server_shrinks_is_refused(server: FakeServer) -> None:
    vllm = FakeVllm()
    vllm.most_tokens = 60
    found = run(server, vllm)
    assert found["run.budget"] == "shrunk: 120 of 200 tokens in 2 requests"
    assert "cut the budgets it was sent (shrunk: 120 of 200 tokens in 2 requests)" in refusal(found)


def test_a_budget_that_only_the_context_shrinks_is_shown(server: FakeServer) -> None:
    vllm = FakeVllm()
    vllm.most_tokens = 4093
    found = run(server, vllm, budget=4094)  # and 3 prompt tokens: one more than max_model_len
    assert found["run.budget"] == "the context holds 8186 of 8188 tokens in 2 requests"
    require_steady({"candidate": found})
    assert run(server, vllm, budget=4093)["run.budget"].startswith("arrives as asked")


def test_scored_and_failed_requests_are_counted_as_the_server_does(server: FakeServer) -> None:
    vllm = FakeVllm()

    def answer(path: str, body: dict[str, Any]) -> Any:
        if body.get("seed") == 0 and body["max_tokens"] == 13:
            return Reply({"error": {"message": "no"}}, 400)
        reply = vllm(path, body)
        entry = {"5": {"logprob": -0.1}}
        return score_reply([None, entry]) if path == "/v1/completions" else reply

    server.handler = answer

    async def action(endpoint: Endpoint) -> dict[str, str]:
        before = await read_counters(endpoint)
        await endpoint.score([4, 5], 1, 1)
        await endpoint.render(HELLO)
        with pytest.raises(EndpointError, match="refused"):
            await endpoint.chat(HELLO, 13)
        await endpoint.chat(HELLO, 50)
        return await read_after(endpoint, before)

    assert ask(server.url, action)["run.budget"] == "arrives as asked (52 tokens in 3 requests)"


@pytest.mark.parametrize(
    ("extra", "said"),
    [(1, "1 other request"), (3, "3 other requests"), (-1, "1 uncounted request"), (-2, "2 uncounted requests")],
)
def test_requests_of_somebody_else_make_the_budget_unreadable_and_no_error(
    server: FakeServer, extra: int, said: str
) -> None:
    vllm = FakeVllm()
    found = run(server, vllm, lambda: setattr(vllm, "requests", vllm.requests + extra))
    # Two of five before were this client's: a counter that fell below is a restart, and is none here.
    assert found["run.budget"] == f"{UNKNOWN} ({said})" and found["run.restarts"] == "none"
    require_steady({"candidate": found})


def test_a_server_that_counts_late_is_asked_once_more(server: FakeServer) -> None:
    vllm, pages = FakeVllm(), 0

    def answer(path: str, body: dict[str, Any]) -> Any:
        nonlocal pages
        pages += path == "/metrics"
        if path == "/metrics" and pages == 2:
            late = FakeVllm()
            late.requests, late.budget = vllm.requests - 1, vllm.budget - 100
            return late(path, body)
        return vllm(path, body)

    server.handler = answer

    async def action(endpoint: Endpoint) -> dict[str, str]:
        before = await read_counters(endpoint)
        await endpoint.chat(HELLO, 100)
        return await read_after(endpoint, before)

    assert ask(server.url, action)["run.budget"] == "arrives as asked (100 tokens in 1 requests)"
    assert pages == 3


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-5", "1e300"])
@pytest.mark.parametrize("name", ["request_params_max_tokens_count", "request_params_max_tokens_sum"])
def test_counters_that_count_nothing_are_not_readable(server: FakeServer, name: str, value: str) -> None:
    vllm = FakeVllm()
    vllm.metrics = f"process_start_time_seconds 1.0\nvllm:{name} {value}\n"
    found = run(server, vllm)
    assert found["run.budget"] == found["run.preemptions"] == UNKNOWN and found["run.restarts"] == "none"
    require_steady({"candidate": found})


def test_the_engines_of_one_server_are_counted_together(server: FakeServer) -> None:
    vllm = FakeVllm()
    vllm.metrics = "\n".join(
        f'vllm:{name}{{engine="{engine}"}} {value}'
        for engine in (0, 1)
        for name, value in (("request_params_max_tokens_count", 2), ("num_preemptions_total", 3 + engine))
    )
    server.handler = vllm
    counters = ask(server.url, read_counters)
    assert (counters.requests, counters.preemptions, counters.budget, counters.started) == (4, 7, None, None)


def test_a_server_that_is_gone_is_an_error(server: FakeServer) -> None:
    server.script(None)
    with pytest.raises(EndpointError, match="unreachable"):
        ask(server.url, read_counters)

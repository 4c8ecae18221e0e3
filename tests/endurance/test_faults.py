"""Faults between gate and servers: an answer is scored once and as it was, or it is an error and asked again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from fake_server import FakeServer, ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.contract.samples import Role
from harness.endpoint.client import Endpoint, EndpointError
from tests.endurance.gates import Gate, require_same, samples_of, wait_for
from tests.endurance.good_server import PROBLEMS, GoodModel, said
from tests.endurance.proxy import HANG, KINDS, FaultProxy, Plan

Good = dict[Role, FakeServer]
pytestmark = pytest.mark.slow
soak = pytest.mark.soak


@contextmanager
def faulty(good: Good, plan: Callable[[int], Plan]) -> Iterator[dict[str, FaultProxy]]:
    """A proxy before each role's server, with a plan of its own."""
    with ExitStack() as stack:
        yield {
            role: stack.enter_context(FaultProxy(server.url, plan(number)))
            for number, (role, server) in enumerate(good.items())
        }


def met(proxies: dict[str, FaultProxy]) -> Counter[str]:
    return sum((proxy.met for proxy in proxies.values()), Counter[str]())


# -- one client ------------------------------------------------------------------------------------------------


async def _asked(endpoint: Endpoint, numbers: range) -> list[str | EndpointError]:
    async def one(number: int) -> str | EndpointError:
        try:
            return (await endpoint.chat([{"role": "user", "content": question(number)}])).text
        except EndpointError as error:
            return error

    return await asyncio.gather(*map(one, numbers))


def question(number: int) -> str:
    return f"No. {number}: {list(PROBLEMS)[number % len(PROBLEMS)]}"


@pytest.mark.parametrize("count", [300, pytest.param(2500, marks=soak)])
def test_every_answer_is_that_to_its_question_or_an_error(good: Good, count: int, record: Callable[..., None]) -> None:
    model = good["reference"].handler
    assert isinstance(model, GoodModel)
    model.delay = 0.0
    with FaultProxy(good["reference"].url, Plan(5, 0.5)) as proxy:
        found = ask(proxy.url, lambda e: _asked(e, range(count)), retries=2, concurrency=16)
    errors = Counter(one.kind for one in found if isinstance(one, EndpointError))
    for number, one in enumerate(found):
        assert isinstance(one, EndpointError) or one == said("reference", question(number))
    assert not errors.keys() - {"unreachable", "server", "garbage", "timeout"}
    faults = sum(proxy.met.values())
    assert faults > count / 3 and set(proxy.met) == set(KINDS)
    assert sum(errors.values()) < count / 10
    record(
        f"all {len(KINDS)} kinds at once, one client",
        "proxy: half of the questions meet one, once or twice in a row",
        f"{faults} faults, {count} questions, 16 at a time",
        f"{count - sum(errors.values())} answered, each its own; {sum(errors.values())} errors after 2 further tries",
        "nothing",
    )


@soak
@pytest.mark.parametrize("kind", KINDS)
def test_of_each_kind_every_answer_is_that_to_its_question_or_an_error(
    good: Good, kind: str, record: Callable[..., None]
) -> None:
    count, model = 120, good["reference"].handler
    assert isinstance(model, GoodModel)
    model.delay = 0.0
    with FaultProxy(good["reference"].url, Plan(7, 0.7, (kind,))) as proxy:
        found = ask(proxy.url, lambda e: _asked(e, range(count)), retries=2, concurrency=16)
    errors = Counter(one.kind for one in found if isinstance(one, EndpointError))
    for number, one in enumerate(found):
        assert isinstance(one, EndpointError) or one == said("reference", question(number))
    # Behind a closed port questions are refused that never meet the proxy.
    assert proxy.met[kind] > count / (8 if kind == "refused" else 2)
    listed = ", ".join(f"{times} {name}" for name, times in sorted(errors.items()))
    record(
        kind,
        "proxy before one client: 70 % of the questions meet it, once or twice in a row",
        f"{proxy.met[kind]} faults, {count} questions",
        f"{count - sum(errors.values())} answered, each its own" + (f"; errors: {listed}" if listed else ""),
        "nothing",
    )


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4, unique=True), st.integers(0, 2**16))
def test_no_mix_of_faults_gives_a_foreign_answer(good: Good, kinds: list[str], seed: int) -> None:
    model = good["candidate"].handler
    assert isinstance(model, GoodModel)
    model.delay = 0.0
    with FaultProxy(good["candidate"].url, Plan(seed, 0.6, tuple(kinds), most=1)) as proxy:
        found = ask(proxy.url, lambda e: _asked(e, range(seed, seed + 12)), retries=2, concurrency=4)
    for number, one in enumerate(found, start=seed):
        assert isinstance(one, EndpointError) or one == said("candidate", question(number))


# -- whole gates -----------------------------------------------------------------------------------------------


def _disturbed(good: Good, gate: Gate, undisturbed: Gate, plan: Callable[[int], Plan]) -> tuple[Counter[str], int]:
    """Finish a gate behind proxies; returns what it met, and how many calls of the command it took."""
    with faulty(good, plan) as proxies:
        gate.urls = {role: proxy.url for role, proxy in proxies.items()}
        assert gate.finish() == 0, gate.said()
        found = met(proxies)
    require_same(gate, undisturbed.run)
    return found, gate.tries


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=soak) for seed in range(2, 5))])
def test_a_gate_among_faults_of_all_kinds_ends_as_one_without(
    good: Good, make_gate: Callable[..., Gate], undisturbed: Gate, seed: int, record: Callable[..., None]
) -> None:
    found, tries = _disturbed(good, make_gate("run"), undisturbed, lambda number: Plan(10 * seed + number, 0.25))
    assert sum(found.values()) > 25
    record(
        f"all kinds at once, a whole gate (seed {seed})",
        "proxies before both servers: a quarter of all requests",
        f"{sum(found.values())} faults",
        f"verdict after {tries} call{'s' * (tries > 1)} of the command",
        "nothing",
    )


@soak
@pytest.mark.parametrize("kinds", [KINDS[start : start + 3] for start in range(0, len(KINDS), 3)], ids=", ".join)
def test_a_gate_among_faults_of_few_kinds_ends_as_one_without(
    good: Good,
    make_gate: Callable[..., Gate],
    undisturbed: Gate,
    kinds: tuple[str, ...],
    record: Callable[..., None],
) -> None:
    plan: Callable[[int], Plan] = lambda number: Plan(100 + number, 0.5, kinds)  # noqa: E731
    found, tries = _disturbed(good, make_gate("run"), undisturbed, plan)
    for kind in kinds:
        assert found[kind] > 5
        record(
            kind,
            "proxies before both servers: half of all requests meet one of three kinds, once or twice in a row",
            f"{found[kind]} faults",
            f"verdict after {tries} call{'s' * (tries > 1)} of the command",
            "nothing",
        )


def _impatient(seconds: float) -> None:
    """In the gate's process: the timeout that a policy cannot make as short."""
    from harness.endpoint import client

    client.PATIENCE_SECONDS = seconds


@soak  # with 2 s, a machine with other work fails it: answers that come too late are no fault of the gate
@pytest.mark.parametrize("seconds", [2.0, 120.0])
def test_a_server_that_answers_no_question_is_given_up_in_time_and_later_gone_on_with(
    good: Good, make_gate: Callable[..., Gate], undisturbed: Gate, seconds: float, record: Callable[..., None]
) -> None:
    """It hangs in the middle of the run, and its /health is well."""
    gate = make_gate("run")
    with faulty(good, lambda number: Plan(number, 0.0)) as proxies:
        gate.urls = {role: proxy.url for role, proxy in proxies.items()}
        process = gate.start(_impatient, seconds)
        wait_for(gate, process, lambda: samples_of(gate) >= 10, "its tenth answer")
        proxies["candidate"].plan = Plan(3, 1.0, (HANG,), most=1000)
        # Three tries of every question in flight, each with 2 s for its tokens and prompt; the rest is the machine's.
        assert gate.wait(process, 3 * (seconds + 2) + 120) == 4
        hung = proxies["candidate"].met[HANG]
        assert hung and "--resume" in gate.said()
        proxies["candidate"].plan = Plan(3, 0.0)
        assert gate.finish() == 0, gate.said()
    require_same(gate, undisturbed.run)
    record(
        "a server that hangs",
        f"proxy: no answer any more from the middle of the run on; timeout {seconds:.0f} s + tokens",
        f"{hung} requests",
        f"exit code 4 in time, verdict after {gate.tries} calls",
        "nothing",
    )

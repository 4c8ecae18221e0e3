"""The runner asks everything once, goes on where a run ended, and never takes a dead server for wrong answers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, chat_reply

from harness.contract.errors import BadInput, RunFailed
from harness.contract.policy import Requests, Sampling
from harness.contract.samples import Item, PairKey, Role, Sample, SampleLog, read_samples, sample_of
from harness.endpoint.client import Endpoint, EndpointError
from harness.gate.suite_runner import ERRORS_IN_A_ROW, run_suite
from harness.runs.progress import Meter
from suites.base import make_item, make_sample

Answer = Callable[[Item, Role], Awaitable[None]]


class StubEndpoint:
    """As much of an endpoint as the runner itself uses."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.url = f"http://{role}"
        self.health = True

    async def healthy(self) -> bool:
        return self.health


class StubSuite:
    """Answers with a score of 1 after `script` ran; what it asks is kept in order."""

    name = "stub"

    def __init__(self, script: Answer | None = None, reference_first: bool = False) -> None:
        self.script = script
        self.reference_first = reference_first
        self.alternates = False
        self.at_once: int | None = None
        self.asked: list[tuple[Role, str]] = []

    async def answer(self, item: Item, role: Role, endpoint: Any) -> Sample:
        assert getattr(endpoint, "role", role) == role
        self.asked.append((role, item.item))
        if self.script:
            await self.script(item, role)
        return Sample(
            suite="stub", task=item.task, item=item.item, role=role, prompt_sha256=item.prompt_sha256, score=1.0
        )


def same(item: Any) -> Any:
    """Items that are in memory already need no loading."""
    return item


class NeverStop:
    """No check stops early."""

    def record(self, sample: Sample) -> None:
        pass

    def needless(self, pair: PairKey) -> bool:
        return False


def make_items(count: int) -> list[Item]:
    return [make_item("t", f"{i:02d}", [{"role": "user", "content": str(i)}]) for i in range(count)]


def run(
    suite: StubSuite,
    items: list[Item],
    path: Path,
    roles: Iterable[Role] = ("reference", "candidate"),
    concurrency: int = 2,
    endpoints: dict[Role, Any] | None = None,
    stop: Any = None,
) -> Meter:
    meter = Meter("stub", None)
    log = SampleLog(path / "stub.jsonl")
    try:
        chosen = endpoints or {role: StubEndpoint(role) for role in roles}
        asked = dict.fromkeys(("reference", "candidate", "noise"), items)
        stop = stop or NeverStop()
        asyncio.run(asyncio.wait_for(run_suite(suite, asked, same, chosen, log, stop, concurrency, meter), 20))  # type: ignore[arg-type]
    finally:
        log.close()
    return meter


def stored(path: Path) -> dict[tuple[str, str], str | None]:
    """(role, item) -> error of every sample on disk."""
    return {(s.role, s.item): s.error for s in read_samples(path / "stub.jsonl")}


def test_every_item_is_asked_once_of_both_roles(tmp_path: Path) -> None:
    suite, items = StubSuite(), make_items(7)
    meter = run(suite, items, tmp_path)
    expected = {(role, item.item) for role in ("reference", "candidate") for item in items}
    assert sorted(suite.asked) == sorted(expected)
    assert stored(tmp_path) == dict.fromkeys(expected)
    assert meter.done == 14


def test_a_suite_that_alternates_is_asked_one_item_at_a_time_in_turn(tmp_path: Path) -> None:
    busy = [0, 0]

    async def watch(item: Item, role: Role) -> None:
        busy[0] += 1
        busy[1] = max(busy)
        await asyncio.sleep(0.001)
        busy[0] -= 1

    suite = StubSuite(watch)
    suite.alternates = True
    meter = run(suite, make_items(5), tmp_path, concurrency=4)
    assert busy[1] == 1 and meter.done == 10
    rounds = [suite.asked[i : i + 2] for i in range(0, 10, 2)]
    assert all({role for role, _ in pair} == {"reference", "candidate"} for pair in rounds)
    assert all(one[1] == other[1] for one, other in rounds)
    assert [pair[0][0] for pair in rounds] == ["reference", "candidate", "reference", "candidate", "reference"]


def test_a_server_that_fails_in_a_suite_that_alternates_ends_the_run(tmp_path: Path) -> None:
    async def fail(item: Item, role: Role) -> None:
        raise EndpointError("unreachable", "gone")

    suite, gone = StubSuite(fail), StubEndpoint("reference")
    suite.alternates, gone.health = True, False
    with pytest.raises(RunFailed, match="the reference server"):
        run(suite, make_items(2), tmp_path, endpoints={"reference": gone})
    assert stored(tmp_path) == {}


def test_a_later_run_asks_only_what_is_missing(tmp_path: Path) -> None:
    items = make_items(6)
    run(StubSuite(), items[:3], tmp_path)
    run(StubSuite(), items[3:4], tmp_path, roles=["reference"])
    before = (tmp_path / "stub.jsonl").read_bytes()
    again = StubSuite()
    meter = run(again, items, tmp_path)
    assert sorted(again.asked) == sorted(
        [("reference", "04"), ("reference", "05"), ("candidate", "03"), ("candidate", "04"), ("candidate", "05")]
    )
    assert (tmp_path / "stub.jsonl").read_bytes().startswith(before)
    assert meter.done == 12
    nothing = StubSuite()
    run(nothing, items, tmp_path)
    assert nothing.asked == []


def test_what_was_answered_before_a_crash_is_kept(tmp_path: Path) -> None:
    async def crash(item: Item, role: Role) -> None:
        if item.item == "03":
            raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run(StubSuite(crash), make_items(6), tmp_path, roles=["reference"], concurrency=1)
    assert [item for _, item in stored(tmp_path)] == ["00", "01", "02"]


def test_bad_input_of_a_suite_reaches_the_caller_as_it_is(tmp_path: Path) -> None:
    async def broken(item: Item, role: Role) -> None:
        raise BadInput("no such metric")

    with pytest.raises(BadInput, match="no such metric"):
        run(StubSuite(broken), make_items(3), tmp_path)


def fails(*which: str, kind: Any = "server", role: Role = "reference") -> Answer:
    async def script(item: Item, asked: Role) -> None:
        if asked == role and item.item in which:
            raise EndpointError(kind, f"no answer to {item.item}")

    return script


@pytest.mark.parametrize("kind", ["refused", "budget", "server", "timeout", "garbage", "unreachable"])
def test_an_error_among_answers_is_a_fact_about_the_item(tmp_path: Path, kind: str) -> None:
    run(StubSuite(fails("02", kind=kind)), make_items(5), tmp_path)
    errors = {key: error for key, error in stored(tmp_path).items() if error}
    assert errors == {("reference", "02"): f"{kind}: no answer to 02"}
    (sample,) = [s for s in read_samples(tmp_path / "stub.jsonl") if s.error]
    assert sample.score is None


@pytest.mark.parametrize("last", ["04", "03"])
def test_an_error_at_the_end_is_written_too(tmp_path: Path, last: str) -> None:
    run(StubSuite(fails(last, "04")), make_items(5), tmp_path, roles=["reference"])
    assert len(stored(tmp_path)) == 5 and stored(tmp_path)["reference", last] is not None


@pytest.mark.parametrize("concurrency", [1, 4])
def test_errors_in_a_row_end_the_run_and_are_not_written(tmp_path: Path, concurrency: int) -> None:
    items = make_items(40)
    broken = StubSuite(fails(*(item.item for item in items[5:]), kind="garbage"))
    with pytest.raises(RunFailed, match=r"the reference server at http://reference fails: garbage.*--resume"):
        run(broken, items, tmp_path, roles=["reference"], concurrency=concurrency)
    assert stored(tmp_path) == {("reference", f"{i:02d}"): None for i in range(5)}
    assert 5 + ERRORS_IN_A_ROW <= len(broken.asked) < 5 + ERRORS_IN_A_ROW + concurrency
    mended = StubSuite()
    run(mended, items, tmp_path, roles=["reference"])
    assert len(mended.asked) == 35 and not any(stored(tmp_path).values())


class WithoutImages(StubSuite):
    """What it runs beside the server fails for every item."""

    async def answer(self, item: Item, role: Role, endpoint: Any) -> Sample:
        return sample_of("stub", item, role, error="infrastructure: no such image")


@pytest.mark.parametrize("health", [True, False])
def test_a_healthy_server_is_not_blamed_for_what_runs_beside_it(tmp_path: Path, health: bool) -> None:
    endpoint = StubEndpoint("reference")
    endpoint.health = health
    says = "8 stub items of the reference in a row failed, its server is well" if health else "the reference server at"
    with pytest.raises(RunFailed, match=rf"^{says}.*: infrastructure: no such image; --resume goes on from here$"):
        run(WithoutImages(), make_items(20), tmp_path, endpoints={"reference": endpoint})
    assert stored(tmp_path) == {}


def test_a_server_without_health_ends_the_run_at_its_first_error(tmp_path: Path) -> None:
    endpoint = StubEndpoint("reference")
    endpoint.health = False
    suite = StubSuite(fails("01", kind="unreachable"))
    with pytest.raises(RunFailed, match="unreachable"):
        run(suite, make_items(10), tmp_path, concurrency=1, endpoints={"reference": endpoint})
    assert stored(tmp_path) == {("reference", "00"): None}


def test_refused_items_are_not_a_failing_server(tmp_path: Path) -> None:
    items = make_items(3 * ERRORS_IN_A_ROW)
    run(StubSuite(fails(*(i.item for i in items), kind="refused")), items, tmp_path)
    errors = [error for (role, _), error in stored(tmp_path).items() if role == "reference"]
    assert len(errors) == len(items) and all(error and error.startswith("refused") for error in errors)


def test_one_role_does_not_wait_for_the_other(tmp_path: Path) -> None:
    seen = {role: asyncio.Event() for role in ("reference", "candidate")}

    async def meet(item: Item, role: Role) -> None:
        seen[role].set()
        for event in seen.values():  # both are being asked at the same time, or this never ends
            await event.wait()

    run(StubSuite(meet), make_items(1), tmp_path, concurrency=1)
    assert len(stored(tmp_path)) == 2


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_items_are_asked_at_once_than_allowed(tmp_path: Path, concurrency: int) -> None:
    now, most = {"reference": 0, "candidate": 0}, {"reference": 0, "candidate": 0}

    async def count(item: Item, role: Role) -> None:
        now[role] += 1
        most[role] = max(most[role], now[role])
        for _ in range(5):
            await asyncio.sleep(0)
        now[role] -= 1

    run(StubSuite(count), make_items(12), tmp_path, concurrency=concurrency)
    assert most == {"reference": concurrency, "candidate": concurrency}


# -- the candidate after the reference -----------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_candidate_is_asked_after_the_reference_answered(tmp_path: Path, concurrency: int) -> None:
    log_path = tmp_path / "stub.jsonl"

    async def slow(item: Item, role: Role) -> None:
        for _ in range(int(item.item) % 3 if role == "reference" else 0):
            await asyncio.sleep(0.005)
        if role == "candidate":
            assert ("reference", item.item) in {(s.role, s.item) for s in read_samples(log_path)}

    run(StubSuite(slow, reference_first=True), make_items(8), tmp_path, concurrency=concurrency)
    assert len(stored(tmp_path)) == 16


def test_the_candidate_alone_goes_on_from_stored_answers(tmp_path: Path) -> None:
    items = make_items(4)
    run(StubSuite(reference_first=True), items[:3], tmp_path, roles=["reference"])
    suite = StubSuite(reference_first=True)
    run(suite, items, tmp_path, roles=["candidate"])
    assert sorted(suite.asked) == [("candidate", "00"), ("candidate", "01"), ("candidate", "02")]
    assert stored(tmp_path)["candidate", "03"] == "reference: gave no answer to compare with"


def test_without_a_reference_answer_the_candidate_is_not_asked(tmp_path: Path) -> None:
    suite = StubSuite(fails("01", kind="refused"), reference_first=True)
    run(suite, make_items(3), tmp_path)
    assert ("candidate", "01") not in suite.asked
    assert stored(tmp_path)["candidate", "01"] == "reference: gave no answer to compare with"
    assert stored(tmp_path)["candidate", "02"] is None


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_reference_that_died_leaves_no_mark_on_the_candidate(tmp_path: Path, concurrency: int) -> None:
    items = make_items(30)
    with pytest.raises(RunFailed, match="reference"):
        run(
            StubSuite(fails(*(i.item for i in items[4:])), reference_first=True),
            items,
            tmp_path,
            concurrency=concurrency,
        )
    assert not any(stored(tmp_path).values())
    run(StubSuite(reference_first=True), items, tmp_path)  # the server is back: everything is answered
    assert len(stored(tmp_path)) == 60 and not any(stored(tmp_path).values())


def test_a_skipped_item_does_not_vouch_for_the_candidates_server(tmp_path: Path) -> None:
    items = make_items(30)

    async def script(item: Item, role: Role) -> None:
        if role == "candidate":
            raise EndpointError("server", "gone")
        if int(item.item) % 2:
            raise EndpointError("refused", "too long")

    with pytest.raises(RunFailed, match="candidate"):
        run(StubSuite(script, reference_first=True), items, tmp_path, concurrency=1)
    assert not any((error or "").startswith("server") for error in stored(tmp_path).values())


# -- with a real server --------------------------------------------------------------------------------------


class ChatSuite(StubSuite):
    """Asks the endpoint one chat."""

    async def answer(self, item: Item, role: Role, endpoint: Any) -> Sample:
        return make_sample("stub", item, role, await endpoint.chat(item.prompt), score=1.0, answer="x")


def test_samples_keep_what_the_server_said(server: FakeServer, tmp_path: Path) -> None:
    def handler(path: str, body: dict[str, Any]) -> Any:
        number = body["messages"][0]["content"]
        return Reply({"error": "no"}, 400) if number == "2" else chat_reply(f"answer {number}", reasoning="so")

    server.handler = handler
    items = make_items(5)
    requests, log = Requests(retries=0, concurrency=2), SampleLog(tmp_path / "stub.jsonl")  # type: ignore[call-arg]

    async def both() -> None:
        async with Endpoint(server.url, "m", requests, Sampling()) as endpoint:  # type: ignore[call-arg]
            roles: dict[Role, Endpoint] = {"reference": endpoint, "candidate": endpoint}
            asked: dict[Role, list[Item]] = {"reference": items, "candidate": items}
            await run_suite(ChatSuite(), asked, same, roles, log, NeverStop(), 2, Meter("stub", None))  # type: ignore[arg-type]

    asyncio.run(both())
    log.close()
    samples = {(s.role, s.item): s for s in read_samples(tmp_path / "stub.jsonl")}
    assert len(samples) == len(server.posts) == 10
    for role in ("reference", "candidate"):
        good, bad = samples[role, "01"], samples[role, "02"]
        assert (good.text, good.reasoning, good.prompt_tokens, good.completion_tokens) == ("answer 1", "so", 3, 2)
        assert good.prompt_sha256 == items[1].prompt_sha256 and good.error is None
        assert bad.score is None and bad.error is not None and bad.error.startswith("refused: ")


def test_the_noise_role_is_asked_its_share_and_waits_for_the_reference(tmp_path: Path) -> None:
    async def slow_reference(item: Item, role: Role) -> None:
        if role == "reference":
            await asyncio.sleep(0.01)

    suite = StubSuite(slow_reference, reference_first=True)
    items = make_items(6)
    asked: dict[Role, list[Item]] = {"reference": items, "candidate": items, "noise": items[:2]}
    log = SampleLog(tmp_path / "stub.jsonl")
    roles: Any = {role: StubEndpoint(role) for role in asked}
    asyncio.run(run_suite(suite, asked, same, roles, log, NeverStop(), 2, Meter("stub", None)))  # type: ignore[arg-type]
    log.close()
    assert sum(role == "noise" for role, _ in suite.asked) == 2
    for name in ("00", "01"):
        order = [role for role, item in suite.asked if item == name]
        assert order[0] == "reference" and set(order) == {"reference", "candidate", "noise"}


@pytest.mark.parametrize("reference_first", [False, True])
def test_what_no_check_needs_any_more_is_not_asked(tmp_path: Path, reference_first: bool) -> None:
    class AfterFour(NeverStop):
        def __init__(self) -> None:
            self.seen: set[tuple[str, Role]] = set()

        def record(self, sample: Sample) -> None:
            self.seen.add((sample.item, sample.role))

        def needless(self, pair: PairKey) -> bool:
            return len(self.seen) >= 8

    suite = StubSuite(reference_first=reference_first)
    run(suite, make_items(100), tmp_path, stop=AfterFour())
    assert 8 <= len(suite.asked) <= 12  # those in flight are finished
    assert len(stored(tmp_path)) == len(suite.asked)


def test_a_resumed_run_tells_the_early_stop_what_is_there(tmp_path: Path) -> None:
    class Counting(NeverStop):
        seen = 0

        def record(self, sample: Sample) -> None:
            self.seen += 1

    run(StubSuite(), make_items(3), tmp_path)
    stop = Counting()
    run(StubSuite(), make_items(3), tmp_path, stop=stop)
    assert stop.seen == 6

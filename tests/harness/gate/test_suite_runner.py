"""The runner asks everything once, in the order of the suite, and goes on where a run ended."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, chat_reply
from stub_runs import NeverStop, StubEndpoint, StubSuite, fails, make_items, run, same, stored

from harness.contract.errors import RunFailed
from harness.contract.samples import Item, PairKey, Role, Sample, SampleLog, read_samples
from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Endpoint
from harness.gate.suite_runner import run_suite
from harness.runs.progress import Meter
from suites.base import make_sample


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


def test_what_is_measured_now_stands_in_the_progress_line(tmp_path: Path) -> None:
    said = []

    async def keep(item: Item, role: Role) -> None:
        said.append(meter.line())

    suite, meter = StubSuite(keep), Meter("stub", None)
    suite.alternates = True
    after = run(suite, make_items(1), tmp_path, meter=meter)
    assert said[0].endswith(" t 00 of the reference") and said[1].endswith(" t 00 of the candidate")
    assert after.text == ""


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_suite_is_told_that_it_is_left_however_that_is(tmp_path: Path, in_turn: bool) -> None:
    endpoint = StubEndpoint("reference")
    endpoint.health = False
    broken, whole = StubSuite(fails("00", kind="unreachable")), StubSuite()
    broken.alternates = whole.alternates = in_turn
    with pytest.raises(RunFailed):
        run(broken, make_items(2), tmp_path, endpoints={"reference": endpoint})
    run(whole, make_items(2), tmp_path)
    assert broken.ended == whole.ended == 1


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
    requests, log = Requests(retries=0, concurrency=2), SampleLog(tmp_path / "stub.jsonl")

    async def both() -> None:
        async with Endpoint(server.url, "m", requests, Sampling()) as endpoint:
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

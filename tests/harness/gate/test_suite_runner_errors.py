"""A failed answer is a fact about its item; a failing server ends the run and is never taken for wrong answers."""

from pathlib import Path
from typing import Any

import pytest
from stub_runs import StubEndpoint, StubSuite, fails, make_items, run, stored

from harness.contract.errors import BadInput, RunFailed
from harness.contract.samples import Item, Role, Sample, read_samples, sample_of
from harness.endpoint.client import EndpointError
from harness.gate.suite_runner import ERRORS_IN_A_ROW


def test_a_server_that_fails_in_a_suite_that_alternates_ends_the_run(tmp_path: Path) -> None:
    async def fail(item: Item, role: Role) -> None:
        raise EndpointError("unreachable", "gone")

    suite, gone = StubSuite(fail), StubEndpoint("reference")
    suite.alternates, gone.health = True, False
    with pytest.raises(RunFailed, match="the reference server"):
        run(suite, make_items(2), tmp_path, endpoints={"reference": gone})
    assert stored(tmp_path) == {}


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


# -- the candidate after the reference -----------------------------------------------------------------------


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

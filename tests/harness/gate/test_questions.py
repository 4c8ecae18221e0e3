"""Asking: the sealed order, every sample once, and no more than a check that has decided still needs."""

import random
from pathlib import Path
from typing import Any

import pytest
from fake_server import Reply
from jobs import (
    BY_SEED,
    BY_SERVER,
    ITEMS,
    POLICY,
    SEED,
    Servers,
    StubSuite,
    asked,
    asked_nothing,
    finish,
    forget,
    make_items,
    make_job,
    model,
    prompts,
    refs,
    stored,
    urls,
)

from harness.contract.errors import RunFailed
from harness.contract.pairs import sealed_order
from harness.contract.policy import parse_policy
from harness.contract.samples import Role
from harness.gate.job import order_items
from harness.gate.pipeline import judge_run
from harness.gate.questions import ask_everything
from harness.judging.verdict import EXIT_CODES
from suites.registry import make_suites

# -- the order -----------------------------------------------------------------------------------------------


def test_both_roles_are_asked_in_the_order_that_the_policy_sealed() -> None:
    sealed, items = parse_policy(POLICY), make_items(30)
    random.Random(1).shuffle(items)
    order = order_items(StubSuite(), refs(items), sealed)
    names = [item.item for item in order["reference"]]
    assert names == [key[2] for key in sealed_order([("stub", "t", i.item, 0) for i in items], sealed.sha256)]
    assert order["candidate"] == order["reference"] and set(order) == {"reference", "candidate"}
    assert names != sorted(names) and sorted(names) == sorted(i.item for i in items)
    other = order_items(StubSuite(), refs(items), parse_policy(POLICY + "# another policy\n"))
    assert [item.item for item in other["reference"]] != names


def test_repeats_of_an_item_are_asked_one_after_the_other() -> None:
    items = make_items(5, "a", repeats=3) + make_items(5, "b", repeats=3)
    random.Random(2).shuffle(items)
    order = order_items(StubSuite(), refs(items), parse_policy(POLICY))["reference"]
    assert len(order) == 30
    for start in range(0, 30, 3):
        three = order[start : start + 3]
        assert len({(i.task, i.item) for i in three}) == 1 and [i.repeat for i in three] == [0, 1, 2]


@pytest.mark.parametrize(("wanted", "drawn"), [(1, 1), (2, 2), (99, 4)])
def test_the_noise_floor_is_asked_the_first_items_of_each_task_with_all_their_repeats(wanted: int, drawn: int) -> None:
    sealed = parse_policy(POLICY + f"noise_floor: {{items: {wanted}}}\n")
    made = make_items(4, "a", repeats=2) + make_items(4, "b", repeats=2)
    order = order_items(StubSuite(), refs(made), sealed)
    for task in ("a", "b"):
        of_task = [item for item in order["reference"] if item.task == task]
        assert [item for item in order["noise"] if item.task == task] == of_task[: 2 * drawn]


def test_a_suite_that_keeps_its_order_is_asked_in_it() -> None:
    class InItsOwn(StubSuite):
        keeps_order = True

    sealed = parse_policy(POLICY + "noise_floor: {items: 3}\n")
    items = refs(make_items(12))
    drawn = {i.item for i in order_items(StubSuite(), items, sealed)["noise"]}
    order = order_items(InItsOwn(), items, sealed)
    assert order["reference"] == order["candidate"] == items
    assert order["noise"] == [item for item in items if item.item in drawn] and len(drawn) == 3


# -- asking servers that run ---------------------------------------------------------------------------------


def test_a_real_suite_is_asked_of_both_and_judged(servers: Servers, tmp_path: Path) -> None:
    policy = BY_SEED.replace("{stub: {}}", "{cot: {tasks: {word_problems: {limit: 3}}}}").replace("stub/*", "cot")
    (suite,) = make_suites(parse_policy(policy).policy, tmp_path / "run")
    items = list(suite.items(None))  # type: ignore[arg-type]
    job = finish(make_job(tmp_path / "run", policy, items, suite), servers)
    found = stored(job.run)
    assert max(found.values()) == 1
    assert {i for role, i in found if role == "reference"} == {i for role, i in found if role == "candidate"}
    assert sum(role == "noise" for role, _ in found) == 2 and len(found) == 8
    verdict = judge_run(job.run)
    assert verdict.checks[0].n == 3 and EXIT_CODES[verdict.verdict] == 2
    assert all({"looped", "unterminated"} <= sample.metrics.keys() for sample in job.run.samples())


@pytest.mark.parametrize("policy", [BY_SEED, BY_SERVER])
def test_the_noise_floor_of_attached_servers_is_the_reference_with_another_seed(
    servers: Servers, tmp_path: Path, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = finish(make_job(tmp_path / "run", policy), servers)
    twice = prompts(job, "noise")
    once = {(f"ask t {i}", SEED): 1 for i in range(6)}
    assert len(twice) == 2 and asked(servers["candidate"]) == once
    assert asked(servers["reference"]) == once | {(prompt, SEED + 1): 1 for prompt in twice}
    assert sum(role == "noise" for role, _ in stored(job.run)) == 2
    assert job.run.manifest().noise_by == "seed"
    assert ("no fresh server to attach to" in capsys.readouterr().err) is (policy is BY_SERVER)


def test_without_a_noise_floor_none_is_noted(servers: Servers, tmp_path: Path) -> None:
    assert finish(make_job(tmp_path / "run"), servers).run.manifest().noise_by is None


def test_a_resumed_run_asks_only_what_is_missing(servers: Servers, tmp_path: Path) -> None:
    job = finish(make_job(tmp_path / "run", BY_SEED), servers)
    whole = stored(job.run)
    forget(job.run, "candidate", "noise", keep=1)
    kept = stored(job.run)
    for server in servers.values():
        server.posts.clear()
    again = finish(make_job(tmp_path / "run", BY_SEED), servers)
    assert stored(again.run) == whole
    assert sum(asked(servers["candidate"]).values()) == 5
    assert [seed for _, seed in asked(servers["reference"])] == [SEED + 1]
    assert len(kept) == len(whole) - 6


@pytest.mark.parametrize("missing", [("noise",), ("candidate", "noise"), ("reference",)])
def test_whatever_is_missing_can_be_asked_alone(servers: Servers, tmp_path: Path, missing: tuple[Role, ...]) -> None:
    whole = stored(finish(make_job(tmp_path / "run", BY_SEED), servers).run)
    job = make_job(tmp_path / "run", BY_SEED)
    forget(job.run, *missing)
    assert stored(finish(make_job(tmp_path / "run", BY_SEED), servers).run) == whole


def test_a_run_that_has_everything_needs_no_server(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finish(make_job(tmp_path / "run", BY_SEED), servers).run.manifest()
    gone: dict[Role, str] = {"reference": "http://127.0.0.1:1", "candidate": "http://127.0.0.1:2"}
    for attached in (gone, None):
        ask_everything(make_job(tmp_path / "run", BY_SEED), attached)
        assert "no server is needed" in capsys.readouterr().err
    assert make_job(tmp_path / "run").run.manifest() == before


def test_how_the_noise_floor_was_measured_is_not_noted_anew(servers: Servers, tmp_path: Path) -> None:
    job = finish(make_job(tmp_path / "run", BY_SERVER), servers)
    job.manifest.noise_by = "server"  # as a run writes it that serves by itself
    job.save()
    forget(job.run, "candidate", keep=3)
    assert finish(make_job(tmp_path / "run", BY_SERVER), servers).run.manifest().noise_by == "server"


@pytest.mark.parametrize("broken", [Reply({}, 500), {"data": []}, {"data": [7]}, {"data": "x"}, None])
def test_an_attached_server_without_a_model_is_a_failed_run(servers: Servers, tmp_path: Path, broken: Any) -> None:
    inner = model(servers, "candidate")
    servers["candidate"].handler = lambda path, body: broken if path == "/v1/models" else inner(path, body)
    with pytest.raises(RunFailed, match=servers["candidate"].url):
        ask_everything(make_job(tmp_path / "run"), urls(servers))
    assert asked_nothing(servers)


def test_what_was_answered_before_a_server_failed_is_kept_and_the_rest_asked_later(
    servers: Servers, tmp_path: Path
) -> None:
    inner = model(servers, "candidate")

    def dying(path: str, body: dict[str, Any]) -> Any:
        if sum(asked(servers["candidate"]).values()) > 2:
            servers["candidate"].health = 503
            return Reply({"error": "dead"}, 500)
        return inner(path, body)

    servers["candidate"].handler = dying
    job = make_job(tmp_path / "run")
    with pytest.raises(RunFailed, match=r"the candidate server at .* fails: server"):
        ask_everything(job, urls(servers))
    before = stored(job.run)
    assert {item for role, item in before if role == "candidate"} < ITEMS
    servers["candidate"].handler, servers["candidate"].health = inner, 200
    after = stored(finish(make_job(tmp_path / "run"), servers).run)
    assert before < after and len(after) == 12


# -- stopping early ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "outcome"), [(True, "FAIL"), (False, "PASS")])
def test_a_sequential_check_that_has_decided_leaves_the_rest_unasked(
    servers: Servers, tmp_path: Path, lost: bool, outcome: str
) -> None:
    policy = POLICY.replace("max_loss: 0.5", "max_loss: 0.3, stop: sequential")
    items = make_items(200)
    if lost:
        model(servers, "candidate").wrong = {item.prompt[0]["content"] for item in items}
    job = finish(make_job(tmp_path / "run", policy, items), servers)
    verdict = judge_run(job.run)
    (check,) = verdict.checks
    assert verdict.verdict == outcome == check.verdict and check.planned == 200 and 1 < check.n < 100
    assert job.run.manifest().stopped == [f"accuracy on stub/t: {outcome} after {check.n} of 200 items"]
    for role in ("reference", "candidate"):
        assert check.n <= sum(asked(servers[role]).values()) <= check.n + 4 * 4  # those in flight are finished
    by_order = [item.item for item in job.items["stub"]["reference"]][: check.n]
    assert all((role, item) in stored(job.run) for item in by_order for role in ("reference", "candidate"))
    ask_everything(make_job(tmp_path / "run", policy), {"reference": "http://x", "candidate": "http://y"})  # no server


def test_a_task_that_another_check_speaks_of_is_asked_to_its_end(servers: Servers, tmp_path: Path) -> None:
    policy = POLICY.replace("max_loss: 0.5", "max_loss: 0.3, stop: sequential")
    policy = policy.replace("}]", "}, {metric: looped_rate, on: stub, max_increase: 0.9}]")
    job = finish(make_job(tmp_path / "run", policy, make_items(60)), servers)
    assert len(stored(job.run)) == 120 and len(job.run.manifest().stopped) == 1

"""Asking: the sealed order, every sample once, and only of servers that are, and stay, what they were read to be."""

import random
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, server_info
from jobs import (
    BY_SEED,
    BY_SERVER,
    POLICY,
    SEED,
    Model,
    StubSuite,
    asked,
    finish,
    forget,
    make_items,
    make_job,
    prompt_of,
    prompts,
    refs,
    stored,
    urls,
)

from harness.contract.errors import NotComparable, RunFailed
from harness.contract.pairs import sealed_order
from harness.contract.policy import parse_policy
from harness.contract.samples import Role
from harness.gate.job import Job, order_items
from harness.gate.pipeline import judge_run
from harness.gate.questions import ask_everything
from harness.gate.server_checks import UNTESTED_DRAFT
from harness.judging.verdict import EXIT_CODES
from harness.parity.steadiness import begun
from harness.runs.folder import RunFolder
from suites.registry import make_suites

Servers = dict[Role, FakeServer]
ITEMS = {f"{i:03d}" for i in range(6)}


def model(servers: Servers, role: Role) -> Model:
    handler = servers[role].handler
    assert isinstance(handler, Model)
    return handler


def asked_nothing(servers: Servers) -> bool:
    return not any(asked(server) for server in servers.values())


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
    suite, sealed = StubSuite(), parse_policy(POLICY + "noise_floor: {items: 3}\n")
    items = refs(make_items(12))
    drawn = {i.item for i in order_items(suite, items, sealed)["noise"]}
    suite.keeps_order = True
    order = order_items(suite, items, sealed)
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


# -- servers that are not, or do not stay, what they were ------------------------------------------------------


def test_servers_that_differ_are_asked_no_item(servers: Servers, tmp_path: Path) -> None:
    model(servers, "candidate").version = "0.33.0"
    job = make_job(tmp_path / "run", BY_SEED)
    with pytest.raises(NotComparable, match=r"version: reference 0\.32\.0, candidate 0\.33\.0"):
        ask_everything(job, urls(servers))
    assert asked_nothing(servers) and not stored(job.run)
    model(servers, "candidate").version = "0.32.0"  # nothing was answered: what differed may be put right
    assert len(stored(finish(make_job(tmp_path / "run", BY_SEED), servers).run)) == 14


@pytest.mark.parametrize("missing", ["reference", "candidate"])
def test_the_one_role_that_is_still_missing_is_compared_with_the_other(
    servers: Servers, tmp_path: Path, missing: Role
) -> None:
    job = finish(make_job(tmp_path / "run"), servers)
    forget(job.run, missing)
    for server in servers.values():
        server.posts.clear()
    model(servers, missing).cache = 'cache_dtype="fp8"'
    with pytest.raises(NotComparable, match="kv_cache_dtype"):
        ask_everything(make_job(tmp_path / "run"), urls(servers))
    assert asked_nothing(servers)


def test_servers_that_are_others_after_resume_are_refused(servers: Servers, tmp_path: Path) -> None:
    job = finish(make_job(tmp_path / "run"), servers)
    forget(job.run, "reference", "candidate", keep=3)
    for role in ("reference", "candidate"):
        model(servers, role).version = "0.33.0"
    with pytest.raises(NotComparable, match=r"version: 0\.32\.0, then 0\.33\.0"):
        ask_everything(make_job(tmp_path / "run"), urls(servers))
    assert len(stored(job.run)) == 6


CHANGES: dict[str, Any] = {
    "fingerprint": ({"fingerprint": "vllm-0.32.0-def"}, "changed its settings"),
    "restart": ({"started": 1795309999.0}, "restarted in the middle"),
    "budget": ({"most_tokens": 8}, "cut the budgets"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", ["reference", "candidate"])
@pytest.mark.parametrize("policy", [POLICY, BY_SEED])
def test_a_server_that_changes_in_the_middle_is_not_comparable_and_its_run_is_not_judged(
    servers: Servers, tmp_path: Path, change: str, role: Role, policy: str
) -> None:
    attributes, says = CHANGES[change]
    model(servers, role).changes = (3, attributes)
    job = make_job(tmp_path / "run", policy)
    with pytest.raises(NotComparable, match=f"the {role} server {says}"):
        ask_everything(job, urls(servers))
    assert {item for _, item in stored(job.run)} == ITEMS
    with pytest.raises(NotComparable, match=f"the {role} server {says}"):
        judge_run(job.run)
    with pytest.raises(NotComparable, match=f"the {role} server {says}"):  # nor is it after --resume
        judge_run(finish(make_job(tmp_path / "run", policy), servers).run)


@pytest.mark.parametrize("drafts", [False, True])
def test_a_draft_head_that_was_not_served_is_in_doubt(servers: Servers, tmp_path: Path, drafts: bool) -> None:
    job = make_job(tmp_path / "run")
    for facts in job.manifest.models.values():
        facts.draft_bytes = {"BF16": 1000}
    for role in ("reference", "candidate"):
        if drafts:
            model(servers, role).info = server_info(speculative_config={"method": "mtp"})
            model(servers, role).cache += '} 1\nvllm:spec_decode_num_drafts_total{engine="0"'
    for _ in range(2):  # said once, however often it is found
        found = finish(job, servers).run.manifest().models["candidate"].doubts
        assert found == ([] if drafts else [UNTESTED_DRAFT])
        forget(job.run, "candidate", keep=3)


def unchecked_end(job: Job) -> RunFolder:
    """The run as a kill between the last answer and the check of the servers leaves it."""
    for facts in job.manifest.servers.values():
        facts.readback = begun({k: v for k, v in facts.readback.items() if not k.startswith("run.")})
    job.save()
    return job.run


def test_servers_that_nobody_checked_afterwards_are_no_pass_until_resume_checks_them(
    servers: Servers, tmp_path: Path
) -> None:
    run = unchecked_end(finish(make_job(tmp_path / "run"), servers))
    before = stored(run)
    verdict = judge_run(run)
    assert verdict.verdict == "INCONCLUSIVE" and "the reference server was not checked" in verdict.reason
    assert judge_run(finish(make_job(run.path), servers).run).verdict == "PASS"
    assert stored(run) == before and len(asked(servers["reference"])) == 6  # nothing was asked again


def test_a_change_before_the_run_broke_off_is_remembered(servers: Servers, tmp_path: Path) -> None:
    run = unchecked_end(finish(make_job(tmp_path / "run"), servers))
    model(servers, "candidate").fingerprint = "vllm-0.32.0-def"
    job = make_job(run.path)
    with pytest.raises(NotComparable, match="the candidate server changed its settings"):
        ask_everything(job, urls(servers))


def test_a_run_that_breaks_off_keeps_its_fingerprints_and_is_not_checked(servers: Servers, tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", items=make_items(12))
    inner = servers["candidate"].handler
    servers["candidate"].handler = lambda path, body: Reply({}, 500) if "ask" in prompt_of(body) else inner(path, body)
    with pytest.raises(RunFailed):
        ask_everything(job, urls(servers))
    for facts in job.run.manifest().servers.values():
        assert facts.readback["run.restarts"] == "not checked" and facts.fingerprints == ["vllm-0.32.0-abc"]


def test_a_change_that_only_the_noise_floor_sees_is_seen(servers: Servers, tmp_path: Path) -> None:
    inner = model(servers, "reference")

    def other_for_the_noise(path: str, body: dict[str, Any]) -> Any:
        reply = inner(path, body)
        return reply | {"system_fingerprint": "vllm-0.32.0-def"} if body.get("seed") == SEED + 1 else reply

    servers["reference"].handler = other_for_the_noise
    with pytest.raises(NotComparable, match="the reference server changed its settings"):
        ask_everything(make_job(tmp_path / "run", BY_SEED), urls(servers))


def test_every_budget_of_a_run_with_noise_floor_is_accounted_for(servers: Servers, tmp_path: Path) -> None:
    found = finish(make_job(tmp_path / "run", BY_SEED), servers).run.manifest().servers
    for role, requests in (("reference", 8), ("candidate", 6)):
        # Reading back asks six prompts for one token each.
        said = f"arrives as asked ({32 * requests + 6} tokens in {requests + 6} requests)"
        assert found[role].readback["run.budget"] == said  # type: ignore[index]


def test_an_unsteady_run_is_asked_nothing_more(servers: Servers, tmp_path: Path) -> None:
    job = finish(make_job(tmp_path / "run"), servers)
    forget(job.run, "candidate")
    job.manifest.samples = {}
    job.manifest.servers["reference"].readback["run.restarts"] = "restarted"  # one role after the other: it was first
    job.save()
    servers["candidate"].posts.clear()
    with pytest.raises(NotComparable, match="the reference server restarted"):
        ask_everything(make_job(tmp_path / "run"), urls(servers))
    assert not asked(servers["candidate"])

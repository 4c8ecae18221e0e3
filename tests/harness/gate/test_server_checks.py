"""Servers that are not, or do not stay, what they were read to be: no run of theirs is judged as if they were."""

from pathlib import Path
from typing import Any

import pytest
from fake_server import Reply, server_info
from jobs import (
    BY_SEED,
    ITEMS,
    POLICY,
    SEED,
    Servers,
    asked,
    asked_nothing,
    finish,
    forget,
    make_items,
    make_job,
    model,
    prompt_of,
    stored,
    urls,
)

from harness.contract.errors import NotComparable, RunFailed
from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES, Role
from harness.gate.job import Job
from harness.gate.pipeline import judge_run
from harness.gate.questions import ask_everything
from harness.gate.server_checks import UNTESTED_DRAFT
from harness.parity.steadiness import begun
from harness.runs.folder import RunFolder


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


def test_flags_that_nobody_shows_are_said_and_a_strict_policy_refuses_them(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for role in ROLES:
        model(servers, role).info = None
    strict = POLICY + "allow_unreadable: [generation_config.*, chat_template, tokenizer]\n"
    with pytest.raises(NotComparable, match=r"121 of 156 facts could not be read: config.*allow_unreadable"):
        ask_everything(make_job(tmp_path / "strict", strict), urls(servers))
    assert asked_nothing(servers)
    run = finish(make_job(tmp_path / "run"), servers).run
    assert "WARNING: 132 of 156 facts could not be read, so whether" in capsys.readouterr().err
    assert judge_run(run).verdict == "PASS"  # its own policy allows it
    after = judge_run(run, parse_policy(strict))
    assert after.verdict == "INCONCLUSIVE" and "121 of 156 facts could not be read" in after.reason


CHANGES: dict[str, Any] = {
    "fingerprint": ({"fingerprint": "vllm-0.32.0-def"}, "changed its settings"),
    "restart": ({"started": 1795309999.0, "version": "0.32.1"}, "restarted in the middle .* with other settings"),
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


@pytest.mark.parametrize("role", ["reference", "candidate"])
def test_a_server_that_restarts_as_it_was_is_gone_on_with(servers: Servers, tmp_path: Path, role: Role) -> None:
    model(servers, role).changes = (3, {"started": 1795309999.0, "requests": 0, "budget": 0.0})
    run = finish(make_job(tmp_path / "run"), servers).run
    assert run.manifest().servers[role].readback["run.restarts"] == "restarted, and reads back as before"
    assert stored(run) == {(str(r), item): 1 for r in ROLES for item in ITEMS}
    assert judge_run(run).verdict == "PASS"


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
    for role, requests in zip(ROLES, (8, 6), strict=True):
        # Reading back asks seven prompts for one token each.
        said = f"arrives as asked ({32 * requests + 7} tokens in {requests + 7} requests)"
        assert found[role].readback["run.budget"] == said


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

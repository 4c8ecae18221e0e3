"""A resumed run asks again what failed for reasons that may pass, and nothing else that it has."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply
from jobs import Model, StubSuite, asked, finish, make_items, make_job, prompt_of, stored

from harness.contract.error_kinds import PASSING
from harness.contract.samples import Role, Sample
from harness.contract.settings import Sampling
from harness.gate import pipeline as gate
from harness.gate.job import Job
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from harness.runs.resume import forget_passing_errors, passing
from suites.decoding import Decoding, DecodingConfig, read_ids

Servers = dict[Role, FakeServer]


class InTurn(StubSuite):
    alternates = True


def failing(server: FakeServer, status: dict[str, int]) -> None:
    """Answer these prompts with these statuses."""
    inner = server.handler

    def handler(path: str, body: dict[str, Any]) -> Any:
        code = status.get(prompt_of(body)) if path == "/v1/chat/completions" else None
        return Reply({"error": "not now"}, code) if code else inner(path, body)

    server.handler = handler


def mended(servers: Servers) -> None:
    for server in servers.values():
        server.handler = Model()
        server.posts.clear()


def errors(run: RunFolder) -> dict[tuple[str, str], str]:
    """(role, item) to the kind of its error."""
    return {(s.role, s.item): s.error.split(":")[0] for s in run.samples() if s.error}


def resumed(path: Path, in_turn: Collection[str] = (), **more: Any) -> tuple[Job, int]:
    """A job that goes on as --resume does, and how many samples it forgot."""
    job = make_job(path, **more)
    return job, forget_passing_errors(job.run, job.manifest, in_turn)


def test_what_may_pass_is_asked_again_and_what_was_refused_is_not(servers: Servers, tmp_path: Path) -> None:
    failing(servers["candidate"], {"ask t 2": 503, "ask t 3": 400})
    failing(servers["reference"], {"ask t 4": 500})
    job = finish(make_job(tmp_path / "run"), servers)
    kinds = {("candidate", "002"): "server", ("candidate", "003"): "refused", ("reference", "004"): "server"}
    assert errors(job.run) == kinds
    gate.judge_run(job.run)
    mended(servers)

    job, forgotten = resumed(tmp_path / "run")
    assert forgotten == 2 and errors(job.run) == {("candidate", "003"): "refused"}
    assert job.run.manifest().samples == {}, "the run is an unfinished one, and says so"
    assert not (job.run.path / "verdict.json").exists(), "what it was judged on is no longer there"
    finish(job, servers)
    assert [prompt for prompt, _ in asked(servers["candidate"])] == ["ask t 2"]
    assert [prompt for prompt, _ in asked(servers["reference"])] == ["ask t 4"]
    assert errors(job.run) == {("candidate", "003"): "refused"} and max(stored(job.run).values()) == 1
    assert len(stored(job.run)) == 12
    job.run.require_untouched()


def test_a_run_without_such_errors_stays_sealed(servers: Servers, tmp_path: Path) -> None:
    failing(servers["candidate"], {"ask t 3": 400})
    before = finish(make_job(tmp_path / "run"), servers)
    path = before.run.samples_path("stub")
    content, seal = path.read_bytes(), before.run.manifest().samples
    job, forgotten = resumed(tmp_path / "run")
    assert forgotten == 0 and path.read_bytes() == content and job.run.manifest().samples == seal != {}


def test_the_other_lines_are_kept_to_the_byte(servers: Servers, tmp_path: Path) -> None:
    failing(servers["candidate"], {"ask t 2": 500})
    path = finish(make_job(tmp_path / "run"), servers).run.samples_path("stub")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b'{"suite"', b'{ "suite"')  # as another version might write it
    path.write_bytes(b"".join(lines) + b'{"suite": "st')
    assert resumed(tmp_path / "run")[1] == 1
    assert path.read_bytes() == b"".join(line for line in lines if b"not now" not in line)
    assert [file.name for file in path.parent.iterdir()] == ["stub.jsonl"]


def test_trajectories_of_the_reference_are_made_again_with_what_hangs_on_them(servers: Servers, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "decoding"
    suite = Decoding(DecodingConfig(), Sampling(), folder)
    failing(servers["reference"], {"ask t 1": 500, "ask t 2": 400})
    job = finish(make_job(tmp_path / "run", items=make_items(4), suite=suite), servers)
    want = {("reference", "001"): "server", ("reference", "002"): "refused"}
    assert errors(job.run) == want | {("candidate", "001"): "reference", ("candidate", "002"): "reference"}
    (folder / "001.reference.json").write_text("of a killed process", "utf-8")
    mended(servers)
    job, forgotten = resumed(tmp_path / "run", suite=suite)
    assert forgotten == 2
    finish(job, servers)
    assert errors(job.run) == {("reference", "002"): "refused", ("candidate", "002"): "reference"}
    assert read_ids(folder / "001.reference.json") == read_ids(folder / "001.candidate.json")
    for server in servers.values():
        assert [prompt for prompt, _ in asked(server)] == ["ask t 1"]


def sample(item: str, role: Role, error: str | None) -> Sample:
    return Sample(suite="s", task="t", item=item, role=role, prompt_sha256="0", error=error)


@pytest.mark.parametrize("role", ["reference", "candidate", "noise"])
def test_kinds_that_may_pass(role: Role) -> None:
    kept = ["refused", "budget", "garbage", "grader", "no error"]
    found = passing(sample(kind, role, None if kind == "no error" else f"{kind}: why") for kind in [*PASSING, *kept])
    assert {key.item for key in found} == {"unreachable", "timeout", "server", "infrastructure"}
    assert {key.role for key in found} == {role}


def test_what_wanted_the_references_answer_goes_with_its_error() -> None:
    none = "reference: gave no answer to compare with"
    of_reference = {"a": "timeout: x", "b": "garbage: x"}
    samples = [sample(item, role, none) for item in "abc" for role in ("candidate", "noise")]  # c: it was never stored
    samples += [sample(item, "reference", error) for item, error in of_reference.items()]
    found = sorted((key.item, key.role) for key in passing(samples))
    assert found == [("a", "candidate"), ("a", "noise"), ("a", "reference"), ("c", "candidate"), ("c", "noise")]


def test_where_servers_are_measured_a_pair_is_asked_again_as_a_whole(servers: Servers, tmp_path: Path) -> None:
    failing(servers["candidate"], {"ask t 2": 503, "ask t 3": 400})
    suite = InTurn()
    finish(make_job(tmp_path / "run", suite=suite), servers)
    mended(servers)
    job, forgotten = resumed(tmp_path / "run", in_turn=["stub"], suite=suite)
    assert forgotten == 2
    finish(job, servers)
    assert [[prompt for prompt, _ in asked(server)] for server in servers.values()] == [["ask t 2"]] * 2
    assert errors(job.run) == {("candidate", "003"): "refused"} and len(stored(job.run)) == 12


def test_the_gate_does_so_when_it_resumes(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(servers["candidate"], {"ask t 2": 503, "ask t 3": 400})
    run = finish(make_job(tmp_path / "run"), servers).run
    monkeypatch.setattr(gate, "render_run", lambda run, single_file=False: run.report_path / "index.html")
    monkeypatch.setattr(gate, "_models", lambda *_: {})
    monkeypatch.setattr(gate, "make_suites", lambda *_: [])  # nothing is asked: what is missing stays so
    verdict = gate.run_gate(gate.GateOptions("m", out=run.path, resume=True), Reporter())[1]
    assert "1 samples are asked again: their server or container had failed" in capsys.readouterr().err
    assert (verdict.checks[0].missing, verdict.checks[0].errored) == (1, 1)
    assert errors(run) == {("candidate", "003"): "refused"}

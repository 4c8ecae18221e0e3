"""What a baseline gives: the reference's samples and all that belongs to them, and nothing else."""

from pathlib import Path

import pytest
from fake_server import FakeServer
from jobs import (
    BY_SEED,
    BY_SERVER,
    POLICY,
    ROLES_AND_NOISE,
    SEED,
    asked,
    finish,
    finished,
    make_items,
    make_job,
    model,
    stored,
)

from harness.contract.errors import BadInput, NotComparable
from harness.contract.samples import Key, Role, Sample
from harness.gate.baseline import reuse
from harness.gate.job import Job
from harness.gate.pipeline import GateOptions, _use_baseline, judge_run, run_gate
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter


@pytest.fixture
def earlier(tmp_path: Path) -> RunFolder:
    return finished(tmp_path / "earlier")


def taken(earlier: RunFolder, job: Job) -> int:
    return reuse(earlier, job.run, job.sealed.policy, job.manifest, job.items)


def test_the_references_samples_are_taken_and_the_candidates_never(earlier: RunFolder, tmp_path: Path) -> None:
    job = make_job(tmp_path / "new")
    assert taken(earlier, job) == 6
    assert stored(job.run) == {("reference", f"{i:03d}"): 1 for i in range(6)}
    assert {sample.text for sample in job.run.samples()} == {"reference of earlier"}
    assert job.manifest.baseline and job.manifest.baseline.model_dump() == {
        "run_id": "earlier",
        "created": "2026-01-01",
        "path": str(earlier.path),
    }
    assert set(job.manifest.servers) == {"reference"}
    assert job.manifest.servers["reference"] == earlier.manifest().servers["reference"]


def test_errors_and_what_is_there_already_are_not_taken(tmp_path: Path) -> None:
    earlier, job = finished(tmp_path / "earlier", errors=("001", "004")), make_job(tmp_path / "new")
    log = job.run.log("stub")
    (item,) = (item for item in job.items["stub"]["reference"] if item.item == "002")
    own = {"suite": "stub", "task": "t", "item": "002", "role": "reference", "text": "my own"}
    log.append(Sample(**own, prompt_sha256=item.prompt_sha256, score=0.0))
    log.close()
    assert taken(earlier, job) == 3
    assert {s.item: s.text for s in job.run.samples()}["002"] == "my own"
    assert {item for _, item in stored(job.run)} == {"000", "002", "003", "005"}
    assert taken(earlier, job) == 0


@pytest.mark.parametrize(
    ("before", "now", "noise"),
    [
        *((BY_SEED, BY_SEED, 2), (BY_SERVER, BY_SERVER, 2), (BY_SERVER, BY_SEED, 0)),
        *((BY_SEED, BY_SERVER, 0), (POLICY, BY_SEED, 0), (BY_SEED, POLICY, 0)),
    ],
)
def test_a_noise_floor_is_taken_when_it_was_measured_the_same_way(
    tmp_path: Path, before: str, now: str, noise: int
) -> None:
    earlier, job = finished(tmp_path / "earlier", before), make_job(tmp_path / "new", now)
    assert taken(earlier, job) == 6 + noise
    assert sum(role == "noise" for role, _ in stored(job.run)) == noise
    assert ("noise" in job.manifest.servers) is (before == now == BY_SERVER)
    assert job.manifest.noise_by == (earlier.manifest().noise_by if noise else None)


def test_only_the_items_that_this_run_draws_for_its_noise_floor_are_taken(tmp_path: Path) -> None:
    earlier = finished(tmp_path / "earlier", BY_SEED.replace("items: 2", "items: 6"))
    job = make_job(tmp_path / "new", BY_SEED)
    assert taken(earlier, job) == 8
    wanted = {item.item for item in job.items["stub"]["noise"]}
    assert {item for role, item in stored(job.run) if role == "noise"} == wanted


def test_the_log_probabilities_come_along(tmp_path: Path) -> None:
    earlier, job = finished(tmp_path / "earlier", BY_SEED), make_job(tmp_path / "new", BY_SEED)
    (earlier.path / "stub").mkdir()
    for item in make_items(6):
        for role in ROLES_AND_NOISE:
            (earlier.path / "stub" / f"{item.item}.{role}.parquet").write_text(f"{item.item} {role}", "utf-8")
    taken(earlier, job)
    files = {file.name: file.read_text("utf-8") for file in (job.run.path / "stub").iterdir()}
    reference = {f"{i:03d}.reference.parquet": f"{i:03d} reference" for i in range(6)}
    noise = {f"{i.item}.noise.parquet": f"{i.item} noise" for i in job.items["stub"]["noise"]}
    assert files == reference | noise


# -- in a gate -----------------------------------------------------------------------------------------------


def test_with_a_baseline_only_the_candidate_is_asked(
    servers: dict[Role, FakeServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = finish(make_job(tmp_path / "earlier", BY_SEED), servers).run
    for server in servers.values():
        server.posts.clear()
    job = make_job(tmp_path / "new", BY_SEED)
    _use_baseline(job, earlier)
    assert f"baseline {earlier.path}: 8 samples of the reference are used again" in capsys.readouterr().err
    finish(job, servers)
    assert not servers["reference"].posts and asked(servers["candidate"]) == {(f"ask t {i}", SEED): 1 for i in range(6)}
    manifest = job.run.manifest()
    assert manifest.baseline and manifest.baseline.run_id == "earlier" and manifest.noise_by == "seed"
    assert manifest.allowed_differences == ["model", "quantization"]
    assert judge_run(job.run).model_dump(exclude={"policy_sha256"}) == judge_run(earlier).model_dump(
        exclude={"policy_sha256"}
    )


def test_with_a_baseline_the_reference_needs_no_server(servers: dict[Role, FakeServer], tmp_path: Path) -> None:
    earlier = finish(make_job(tmp_path / "earlier"), servers).run
    alone: dict[Role, FakeServer] = {"candidate": servers["candidate"]}
    job = make_job(tmp_path / "new")
    with pytest.raises(BadInput, match="the reference has to be asked after all: give --reference-url"):
        finish(job, alone)
    _use_baseline(job, earlier)
    finish(job, alone)
    assert len(stored(job.run)) == 12


def test_a_candidates_url_alone_needs_a_baseline(tmp_path: Path) -> None:
    for given in ({"candidate_url": "http://c"}, {"reference_url": "http://r"}):
        with pytest.raises(BadInput, match=r"give both or none \(with --baseline the candidate's alone\)"):
            run_gate(GateOptions("m", out=tmp_path / "run", **given), Reporter())  # type: ignore[arg-type]


def test_a_candidate_is_compared_with_what_the_baseline_read_back(
    servers: dict[Role, FakeServer], tmp_path: Path
) -> None:
    earlier = finish(make_job(tmp_path / "earlier"), servers).run
    model(servers, "candidate").cache = 'cache_dtype="fp8"'
    servers["candidate"].posts.clear()
    job = make_job(tmp_path / "new")
    _use_baseline(job, earlier)
    with pytest.raises(NotComparable, match="kv_cache_dtype: reference auto, candidate fp8"):
        finish(job, servers)
    assert not asked(servers["candidate"])


def test_a_noise_floor_by_seed_is_asked_of_the_very_server_that_the_baseline_had(
    servers: dict[Role, FakeServer], tmp_path: Path
) -> None:
    earlier = finish(make_job(tmp_path / "earlier"), servers).run
    for name, version in (("same", "0.32.0"), ("newer", "0.33.0")):
        for role, server in servers.items():
            server.posts.clear()
            model(servers, role).version = version
        job = make_job(tmp_path / name, BY_SEED)
        _use_baseline(job, earlier)
        if name == "same":
            finish(job, servers)
            assert {seed for _, seed in asked(servers["reference"])} == {SEED + 1} and len(stored(job.run)) == 14
        else:
            with pytest.raises(NotComparable, match=r"the servers of the reference.*version: 0\.32\.0, then 0\.33\.0"):
                finish(job, servers)


def test_a_baseline_that_does_not_fit_is_not_used_and_says_why(
    earlier: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path / "new", quantgate_version="2", versions={"vllm": "0.33.0"})
    _use_baseline(job, earlier)
    said = capsys.readouterr().err
    assert "is not used, the reference is asked: quantgate 1; version of vllm" in said
    assert not stored(job.run) and job.manifest.baseline is None and not job.manifest.servers


def test_a_resumed_run_keeps_its_baseline(earlier: RunFolder, tmp_path: Path) -> None:
    job = make_job(tmp_path / "new")
    _use_baseline(job, earlier)
    again = make_job(tmp_path / "new")
    assert again.manifest.baseline == job.manifest.baseline
    _use_baseline(again, RunFolder(tmp_path / "gone"))  # not even looked at
    assert again.manifest.baseline == job.manifest.baseline
    log = again.run.log("stub")
    assert Key("stub", "t", "000", 0, "reference") in log
    log.close()

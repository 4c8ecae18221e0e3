"""Rounds: which roles are served at the same time, with which share of the machine, and what is asked of each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from jobs import BY_SEED, BY_SERVER, POLICY, SEED, SEQUENTIAL, Model, asked, finish, forget, make_job, prompts, stored

from harness.contract.errors import NotComparable, RunFailed
from harness.contract.samples import Role
from harness.gate import questions as asking
from harness.gate.job import Job
from harness.gate.questions import _plans, _rounds, ask_everything
from harness.parity import steadiness as steady
from harness.serving.flags import ServerPlan
from harness.serving.hardware import Gpu, Hardware

REFERENCE: Role = "reference"
CANDIDATE: Role = "candidate"
NOISE: Role = "noise"
CPU = Hardware(processor="test", cpus=[4, 5], memory_gib=64, free_gib=32, gpus=[])
ONE_GPU = replace(CPU, gpus=[Gpu("0", "H100", 80.0, 79.0)])
TWO_GPUS = replace(CPU, gpus=[Gpu("0", "H100", 80.0, 79.0), Gpu("1", "H100", 80.0, 79.0)])


def job_of(tmp_path: Path, policy: str, noise_by: Any = None) -> Job:
    job = make_job(tmp_path / "run", policy)
    job.manifest.noise_by = noise_by
    for role in ("reference", "candidate"):
        (tmp_path / role).mkdir(exist_ok=True)
        job.manifest.models[role].path = str(tmp_path / role)
    return job


BOTH = [REFERENCE, CANDIDATE]
ALL = [*BOTH, NOISE]


@pytest.mark.parametrize(
    ("placement", "noise_by", "waiting", "rounds"),
    [
        ("together", None, BOTH, [(BOTH, False)]),
        ("together", None, [CANDIDATE], [([CANDIDATE], False)]),  # a baseline's reference, or a resumed run
        ("together", "seed", ALL, [(BOTH, True)]),
        ("together", "seed", [CANDIDATE, NOISE], [(BOTH, True)]),
        ("together", "seed", [NOISE], [([REFERENCE], True)]),
        ("together", "seed", BOTH, [(BOTH, False)]),
        ("together", "server", ALL, [(BOTH, False), ([NOISE], False)]),
        ("together", "server", [CANDIDATE, NOISE], [([CANDIDATE], False), ([NOISE], False)]),
        ("together", "server", [NOISE], [([NOISE], False)]),
        ("together", "server", [CANDIDATE], [([CANDIDATE], False)]),
        ("sequential", None, BOTH, [([REFERENCE], False), ([CANDIDATE], False)]),
        ("sequential", None, [CANDIDATE], [([CANDIDATE], False)]),
        ("sequential", "seed", ALL, [([REFERENCE], True), ([CANDIDATE], False)]),
        ("sequential", "seed", [CANDIDATE, NOISE], [([REFERENCE], True), ([CANDIDATE], False)]),
        ("sequential", "seed", [NOISE], [([REFERENCE], True)]),
        ("sequential", "server", ALL, [([REFERENCE], False), ([CANDIDATE], False), ([NOISE], False)]),
        ("sequential", "server", [CANDIDATE, NOISE], [([CANDIDATE], False), ([NOISE], False)]),
    ],
)
def test_rounds(
    tmp_path: Path, placement: str, noise_by: str | None, waiting: list[Role], rounds: list[tuple[list[Role], bool]]
) -> None:
    job = job_of(tmp_path, f"serving: {{placement: {placement}}}\n" + BY_SERVER, noise_by)
    assert list(_rounds(job, waiting)) == rounds


# -- shares of the machine -----------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say what machine it is; no vLLM needs to be installed."""
    monkeypatch.setattr(metadata, "version", lambda name: "0.32.0")
    return lambda hardware: monkeypatch.setattr(asking, "detect", lambda: hardware)


def cores(plans: Sequence[ServerPlan]) -> dict[Role, list[int]]:
    return {plan.role: plan.cpus for plan in plans}


def gpus(plans: Sequence[ServerPlan]) -> dict[Role, tuple[str, str]]:
    """By role: its GPUs and the share of their memory."""
    share = "--gpu-memory-utilization"
    return {p.role: (p.environment["CUDA_VISIBLE_DEVICES"], p.command[p.command.index(share) + 1]) for p in plans}


def test_a_role_served_alone_has_the_share_that_it_has_beside_the_other(tmp_path: Path, machine: Any) -> None:
    job = job_of(tmp_path, POLICY)
    machine(CPU)
    assert cores(_plans(job, ["reference", "candidate"])) == {"reference": [4], "candidate": [5]}
    assert cores(_plans(job, ["reference"])) == {"reference": [4]}
    assert cores(_plans(job, ["candidate"])) == {"candidate": [5]}
    machine(ONE_GPU)
    assert gpus(_plans(job, ["candidate"])) == {"candidate": ("0", "0.45")}
    machine(TWO_GPUS)
    assert gpus(_plans(job, ["candidate"])) == {"candidate": ("1", "0.9")}


@pytest.mark.parametrize("hardware", [CPU, ONE_GPU, TWO_GPUS])
def test_the_noise_floors_server_is_the_references_once_more(tmp_path: Path, machine: Any, hardware: Hardware) -> None:
    machine(hardware)
    job = job_of(tmp_path, BY_SERVER)
    reference, _ = _plans(job, ["reference", "candidate"])
    (noise,) = _plans(job, ["noise"])
    assert (noise.role, noise.model, noise.cpus) == ("noise", tmp_path / "reference", reference.cpus)
    assert noise.environment == reference.environment
    ports = (str(reference.port), str(noise.port))
    blank = [["PORT" if a == port else a for a in p.command] for p, port in zip((reference, noise), ports, strict=True)]
    assert blank[0] == blank[1]


@pytest.mark.parametrize("role", ["reference", "candidate", "noise"])
def test_one_after_the_other_each_has_the_whole_machine(tmp_path: Path, machine: Any, role: Role) -> None:
    job = job_of(tmp_path, SEQUENTIAL + BY_SERVER)
    machine(CPU)
    (plan,) = _plans(job, [role])
    assert (plan.role, plan.cpus) == (role, [4, 5])
    assert plan.model == tmp_path / ("candidate" if role == "candidate" else "reference")
    machine(ONE_GPU)
    assert gpus(_plans(job, [role])) == {role: ("0", "0.9")}


# -- served and asked ----------------------------------------------------------------------------------------


@dataclass
class Fleet:
    """Scripted servers in the place of those that vLLM would be."""

    servers: dict[Role, FakeServer]
    rounds: list[list[Role]] = field(default_factory=list)
    up: set[Role] = field(default_factory=set)

    def plan(self, _: Any, models: dict[Role, Path], *__: Any) -> list[ServerPlan]:
        ports = {role: int(self.servers[role].url.rsplit(":", 1)[1]) for role in models}
        return [ServerPlan(role, model, ports[role], ["serve", str(model)]) for role, model in models.items()]

    @contextmanager
    def serve(self, plans: list[ServerPlan], *_: Any) -> Iterator[list[Any]]:
        self.rounds.append([plan.role for plan in plans])
        self.up = {plan.role for plan in plans}
        yield []
        self.up = set()

    def model(self, role: Role) -> Model:
        handler = self.servers[role].handler
        assert isinstance(handler, Model)
        return handler


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    with FakeServer() as reference, FakeServer() as candidate, FakeServer() as noise:
        made = Fleet({"reference": reference, "candidate": candidate, "noise": noise})
        for server in made.servers.values():
            server.handler = Model()
        monkeypatch.setattr(asking, "plan_servers", made.plan)
        monkeypatch.setattr(asking, "serve", made.serve)
        monkeypatch.setattr(steady, "SETTLE_SECONDS", 0.0)
        yield made


@pytest.mark.parametrize(
    ("policy", "rounds"),
    [
        (POLICY, [BOTH]),
        (BY_SEED, [BOTH]),
        (BY_SERVER, [BOTH, [NOISE]]),
        (SEQUENTIAL + BY_SEED, [[REFERENCE], [CANDIDATE]]),
        (SEQUENTIAL + BY_SERVER, [[REFERENCE], [CANDIDATE], [NOISE]]),
    ],
)
def test_every_sample_is_there_however_the_roles_are_served(
    fleet: Fleet, tmp_path: Path, policy: str, rounds: list[list[Role]]
) -> None:
    job = finish(job_of(tmp_path, policy))
    found, noise = stored(job.run), "noise_floor" in policy
    assert fleet.rounds == rounds and not fleet.up
    assert len(found) == 12 + 2 * noise and max(found.values()) == 1
    assert [sum(asked(fleet.servers[r]).values()) for r in ("reference", "candidate")] == [
        6 + 2 * (policy in (BY_SEED, SEQUENTIAL + BY_SEED)),
        6,
    ]
    manifest = job.run.manifest()
    assert manifest.allowed_differences == ["model", "quantization"]
    assert manifest.noise_by == (("server" if NOISE in rounds[-1] else "seed") if noise else None)
    assert set(manifest.servers) == {role for served in rounds for role in served}
    for role, facts in manifest.servers.items():
        assert facts.command == ["serve", str(tmp_path / ("candidate" if role == "candidate" else "reference"))]
        assert facts.readback["run.restarts"] == "none"


def test_a_noise_floor_by_server_has_the_seed_of_the_policy(fleet: Fleet, tmp_path: Path) -> None:
    job = finish(job_of(tmp_path, BY_SERVER))
    twice = prompts(job, "noise")
    assert asked(fleet.servers["noise"]) == {(prompt, SEED): 1 for prompt in twice}


def test_the_references_two_servers_must_be_equal_in_everything(fleet: Fleet, tmp_path: Path) -> None:
    fleet.model("noise").version = "0.33.0"
    policy = BY_SERVER + "allow_different: [model, quantization, version]\n"
    with pytest.raises(NotComparable, match=r"the reference's two servers .*version: 0\.32\.0, then 0\.33\.0"):
        ask_everything(job_of(tmp_path, policy), None)
    assert not asked(fleet.servers["noise"]) and len(stored(make_job(tmp_path / "run").run)) == 12


def test_one_after_the_other_parity_is_decided_before_the_second_is_asked(fleet: Fleet, tmp_path: Path) -> None:
    fleet.model("candidate").cache = 'cache_dtype="fp8"'
    with pytest.raises(NotComparable, match="kv_cache_dtype: reference auto, candidate fp8"):
        ask_everything(job_of(tmp_path, SEQUENTIAL + POLICY), None)
    assert sum(asked(fleet.servers["reference"]).values()) == 6 and not asked(fleet.servers["candidate"])


def test_a_resumed_run_serves_only_what_has_something_to_answer(fleet: Fleet, tmp_path: Path) -> None:
    whole = stored(finish(job_of(tmp_path, BY_SERVER)).run)
    for role in (CANDIDATE, NOISE, REFERENCE):
        fleet.rounds.clear()
        forget(make_job(tmp_path / "run").run, role, keep=1)
        assert stored(finish(make_job(tmp_path / "run", BY_SERVER)).run) == whole
        assert fleet.rounds == [[role]]
    fleet.model("candidate").version = "0.33.0"  # and compares it with what was read back of the other
    forget(make_job(tmp_path / "run").run, "candidate")
    with pytest.raises(NotComparable, match="version: reference"):
        ask_everything(make_job(tmp_path / "run", BY_SERVER), None)


def test_a_server_that_died_meanwhile_says_why(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        def ended_within(self, seconds: float) -> bool:
            return True

        def failure(self, what: str) -> RunFailed:
            return RunFailed(f"reference server {what}: out of memory")

    @contextmanager
    def serve(*_: Any) -> Iterator[list[Any]]:
        yield [Dead()]

    monkeypatch.setattr(asking, "serve", serve)
    fleet.servers["reference"].script(None)
    with pytest.raises(RunFailed, match=r"ended in the middle of the run \(--resume goes on\): out of memory"):
        ask_everything(job_of(tmp_path, POLICY), None)

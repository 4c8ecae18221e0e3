"""Bisection for the weakest dose, seeds of a policy, and tasks in processes of their own. Gates are scripted here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_llama import save_tiny_llama

from harness.contract.errors import BadInput, RunFailed
from harness.contract.policy import load_policy, parse_policy
from harness.prove import weakest
from harness.prove.bench import Bench, own_bench
from harness.prove.catalogue import BY_NAME
from harness.prove.findings import Finding, Status, not_run
from harness.prove.jobs import done_in_turn, require_jobs
from harness.prove.seeds import policy_of_seed
from harness.prove.weakest import find_weakest, first_caught, known_weakest
from harness.runs.progress import Reporter
from harness.serving.hardware import GPU_SHARE, Gpu, Hardware, detect


@pytest.mark.parametrize("count", range(1, 14))
def test_every_place_of_the_first_one_is_found_in_few_steps(count: int) -> None:
    for first in range(count + 1):
        for start in range(count):
            asked: list[int] = []

            def caught(step: int, first: int = first, asked: list[int] = asked) -> bool:
                asked.append(step)
                return step >= first

            assert first_caught(count, caught, start) == first
            assert len(asked) == len(set(asked)) <= count.bit_length() + 1 and asked[0] == start


class Doses:
    """Stands for the gate: what it says of each dose of `rtn-2bit`."""

    def __init__(self, weakest_bits: int) -> None:
        self.asked: list[float | None] = []
        self._bits = weakest_bits

    def __call__(self, bench: Bench, name: str, *, reporter: Reporter, dose: float | None = None) -> Finding:
        self.asked.append(dose)
        status: Status = "caught" if (dose or 2) <= self._bits else "undecided"
        return not_run(BY_NAME[name], "scripted").model_copy(update={"status": status})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    good = save_tiny_llama(tmp_path / "good")
    return own_bench(tmp_path / "out", str(good), good, "prove", 0)


def test_the_weakest_dose_is_kept_with_the_step_below_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Doses(weakest_bits=4)
    monkeypatch.setattr(weakest, "gated", gates)
    found = find_weakest(bench, "rtn-2bit", reporter=Reporter())
    assert found and (found.caught, found.not_caught) == ("4 bits", "5 bits")
    assert gates.asked[0] is None and set(gates.asked[1:]) <= {3, 4, 5, 6, 7} and len(gates.asked) <= 4
    assert list(found.tried) == sorted(found.tried, reverse=True) and found.tried["5 bits"] == "undecided"
    assert known_weakest(bench, BY_NAME["rtn-2bit"]) == found


def test_what_is_never_caught_says_so_and_a_failed_gate_says_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weakest, "gated", Doses(weakest_bits=0))
    found = find_weakest(bench, "rtn-2bit", reporter=Reporter())
    assert found and (found.caught, found.not_caught) == (None, "2 bits")
    monkeypatch.setattr(weakest, "gated", lambda bench, name, **_: not_run(BY_NAME[name], "too little memory"))
    with pytest.raises(RunFailed, match="rtn-2bit at 2 bits: too little memory"):
        find_weakest(bench, "rtn-2bit", reporter=Reporter())
    assert find_weakest(bench, "foreign-experts", reporter=Reporter()) is None  # it has none


def test_another_seed_is_in_the_sampling_and_in_suites_that_make_their_questions(tmp_path: Path) -> None:
    before, after = load_policy("prove").policy, load_policy(policy_of_seed("prove", 2, tmp_path)).policy
    assert (before.sampling.seed, after.sampling.seed) == (0, 2)
    assert after.suites["ruler"] == before.suites["ruler"] | {"seed": 2}
    same = {"sampling": before.sampling, "suites": before.suites}
    assert after.model_copy(update=same) == before
    assert parse_policy((tmp_path / "policy.yaml").read_text()).policy == after


def note(folder: Path, *, reporter: Reporter) -> None:
    """What a process that runs a task has: written where the test looks."""
    reporter.say("began")
    (folder / "cores").write_text(" ".join(map(str, sorted(os.sched_getaffinity(0)))))


def fall(folder: Path, *, reporter: Reporter) -> None:
    raise ValueError("a mistake")


def hang(folder: Path, *, reporter: Reporter) -> None:
    """Until it is interrupted."""
    (folder / "hangs").touch()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        raise


def task(function: Callable[..., object], folder: Path) -> tuple[str, Callable[..., object], Path]:
    from functools import partial

    folder.mkdir()
    return folder.name, partial(function, folder), folder


@pytest.mark.slow
@pytest.mark.skipif(len(detect().cpus) < 2, reason="one core cannot be shared out")
def test_each_of_two_processes_has_its_share_of_the_cores(tmp_path: Path) -> None:
    tasks = [task(note, tmp_path / name) for name in "abc"]
    assert sorted(done_in_turn(tasks, 2, Reporter())) == ["a", "b", "c"]
    cores = [{*(tmp_path / name / "cores").read_text().split()} for name in "abc"]
    assert not cores[0] & cores[1] and all(len(own) == len(detect().cpus) // 2 for own in cores)
    assert "began" in (tmp_path / "a" / "progress.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(len(detect().cpus) < 2, reason="one core cannot be shared out")
def test_one_that_falls_is_named_and_the_other_is_interrupted(tmp_path: Path) -> None:
    tasks = [task(hang, tmp_path / "long")]
    waits = [task(after_hang, tmp_path / "bad")]
    with pytest.raises(RunFailed, match=r"bad ended with status 1: .*bad/progress\.log says why"):
        list(done_in_turn([*tasks, *waits], 2, Reporter()))
    assert (tmp_path / "long" / "interrupted").exists()
    assert "a mistake" in (tmp_path / "bad" / "progress.log").read_text()


def after_hang(folder: Path, *, reporter: Reporter) -> None:
    while not (folder.parent / "long" / "hangs").exists():
        time.sleep(0.05)
    fall(folder, reporter=reporter)


def test_more_jobs_than_cores_are_refused() -> None:
    with pytest.raises(BadInput, match="--jobs 10000 is more than"):
        require_jobs(10000, load_policy("prove").policy)


def test_gates_share_gpus_unless_speed_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu("0", "a GPU", 80, 80)
    machine = Hardware(processor="test", cpus=list(range(8)), memory_gib=64, free_gib=32, gpus=[gpu])
    monkeypatch.setattr("harness.prove.jobs.detect", lambda: machine)
    policy = load_policy("prove").policy
    require_jobs(4, policy)
    timed = policy.model_copy(update={"suites": policy.suites | {"speed": {}}})
    require_jobs(1, timed)
    with pytest.raises(BadInput, match="gates on the same GPUs slow each other down"):
        require_jobs(4, timed)


def test_a_gate_beside_others_knows_its_share(tmp_path: Path) -> None:
    assert list(done_in_turn([task(tell_share, tmp_path / "alone")], 2, Reporter())) == ["alone"]
    assert (tmp_path / "alone" / "share").read_text() == "0.5"


@pytest.mark.parametrize("text", ["half", "0", "1.5", "nan"])
def test_a_share_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(GPU_SHARE, text)
    with pytest.raises(BadInput, match="QUANTGATE_GPU_SHARE is"):
        detect()


def tell_share(folder: Path, *, reporter: Reporter) -> None:
    (folder / "share").write_text(str(detect().gpu_share))

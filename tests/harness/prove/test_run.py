"""The way over the entries: one control, what is kept, what is not done twice. Gates are scripted here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_llama import save_tiny_llama

from harness.checkpoint.models import describe
from harness.contract.errors import BadInput, NotComparable, RunFailed
from harness.contract.policy import load_policy
from harness.gate.pipeline import GateOptions
from harness.judging.verdict import Verdict
from harness.prove import gating
from harness.prove.findings import Proof
from harness.prove.run import ProveOptions, prove
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter

POLICY = "name: p\nsuites: {cot: {}}\nchecks: [{metric: accuracy, on: cot, max_loss: 0.1}]\n"
ENTRIES = ("rtn-2bit", "max-new-tokens", "japanese-lost")


class Gates:
    """Stands for the gate: what it is asked, and what it answers by entry (a verdict, or an error)."""

    def __init__(self) -> None:
        self.asked: list[GateOptions] = []
        self.answers: dict[str, str | BaseException] = {
            "int8": "PASS",
            "rtn-2bit": "INCONCLUSIVE",
            "max-new-tokens": NotComparable("generation_config.max_new_tokens: reference null, candidate 32"),
        }
        self.weights: dict[str, str] = {}
        """sha256 of the candidate, as it was when the gate saw it."""

    def __call__(self, options: GateOptions, reporter: Reporter) -> tuple[RunFolder, Verdict]:
        assert options.out is not None and options.policy is not None
        name, run, sealed = options.out.parent.name, RunFolder(options.out), load_policy(options.policy)
        self.asked.append(options)
        facts = describe(name, Path(options.model))
        self.weights[name] = facts.sha256
        manifest = Manifest(
            run_id=name,
            created="now",
            quantgate_version="0",
            command=[],
            policy_name="p",
            policy_sha256=sealed.sha256,
            models={"candidate": facts},
        )
        if not options.resume:
            run.create(manifest, sealed)
        answer = self.answers[name]
        if isinstance(answer, BaseException):
            raise answer
        verdict = {"verdict": answer, "reason": "because", "policy_name": "p", "checks": []}
        seal = {"policy_sha256": sealed.sha256, "sealed_policy_sha256": sealed.sha256}
        return run, Verdict.model_validate(verdict | seal)

    @property
    def names(self) -> list[str]:
        return [options.out.parent.name for options in self.asked if options.out]


Again = Callable[..., Proof]


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Gates:
    made = Gates()
    monkeypatch.setattr(gating, "run_gate", made)
    return made


@pytest.fixture
def again(tmp_path: Path) -> Again:
    """Prove three entries in the same folder, the first time or once more."""
    model = save_tiny_llama(tmp_path / "good", num_hidden_layers=3)
    (tmp_path / "p.yaml").write_text(POLICY)

    def start(
        resume: bool = False,
        policy: str = "p.yaml",
        only: tuple[str, ...] = ENTRIES,
        seeds: int = 1,
        weakest: bool = False,
    ) -> Proof:
        path = str(tmp_path / policy)
        options = ProveOptions(str(model), path, tmp_path / "out", only, resume, seeds=seeds, weakest=weakest)
        return prove(options, Reporter())

    return start


def statuses(proof: Proof) -> dict[str, str]:
    return {finding.name: finding.status for finding in proof.findings}


def test_each_candidate_is_gated_against_the_controls_reference(gates: Gates, again: Again, tmp_path: Path) -> None:
    proof = again()
    assert statuses(proof) == {
        "int8": "harmless",
        "rtn-2bit": "undecided",
        "japanese-lost": "not run",
        "max-new-tokens": "caught",
    }
    assert not proof.holds
    control = tmp_path / "out" / "int8" / "run"
    assert [options.baseline for options in gates.asked] == [None, control, control]
    assert {options.reference for options in gates.asked} == {str(tmp_path / "good")}
    assert (
        len({describe("good", tmp_path / "good").sha256, *gates.weights.values()}) == 3
    )  # generation_config: weights stay
    assert (tmp_path / "out" / "int8" / "model").is_dir() and not (tmp_path / "out" / "rtn-2bit" / "model").exists()
    stored = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert Proof.model_validate(stored) == proof
    assert "needs a model that answers in Japanese" in (tmp_path / "out" / "sensitivity.md").read_text()
    assert "max-new-tokens" in (tmp_path / "out" / "index.html").read_text()


def test_nothing_is_gated_twice(gates: Gates, again: Again) -> None:
    first = again()
    with pytest.raises(BadInput, match="already holds a proof; add --resume"):
        again()
    assert again(resume=True) == first and gates.names == ["int8", "rtn-2bit", "max-new-tokens"]


def test_an_interrupted_proof_says_what_it_has_and_goes_on(gates: Gates, again: Again, tmp_path: Path) -> None:
    gates.answers["rtn-2bit"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        again()
    kept = Proof.model_validate_json((tmp_path / "out" / "proof.json").read_bytes())
    assert statuses(kept) == {"int8": "harmless"} | dict.fromkeys(ENTRIES, "not run")
    reasons = {finding.name: finding.reason for finding in kept.findings}
    assert (
        reasons["rtn-2bit"].startswith("not reached")
        and reasons["japanese-lost"] == "needs a model that answers in Japanese"
    )
    before = gates.weights["rtn-2bit"]
    gates.answers["rtn-2bit"] = "FAIL"
    assert statuses(again(resume=True))["rtn-2bit"] == "caught otherwise"
    assert gates.names == ["int8", "rtn-2bit", "rtn-2bit", "max-new-tokens"]
    assert gates.asked[2].resume and gates.weights["rtn-2bit"] == before


def test_an_entry_whose_run_failed_is_no_catch_and_is_run_again(gates: Gates, again: Again) -> None:
    gates.answers["max-new-tokens"] = RunFailed("the server died of generation_config.max_new_tokens")
    assert statuses(again())["max-new-tokens"] == "not run"
    gates.answers["max-new-tokens"] = "PASS"
    proof = again(resume=True)
    assert statuses(proof)["max-new-tokens"] == "missed" and not proof.holds


def test_without_a_control_nothing_is_proved(gates: Gates, again: Again) -> None:
    gates.answers["int8"] = RunFailed("too little memory")
    with pytest.raises(RunFailed, match=r"the control could not be gated.*too little memory"):
        again()
    assert gates.names == ["int8"]


def test_no_path_of_this_machine_is_in_what_is_published(gates: Gates, again: Again, tmp_path: Path) -> None:
    where = f"{tmp_path / 'out' / 'max-new-tokens' / 'run'}/policy.yaml"
    gates.answers["max-new-tokens"] = NotComparable(f"{where}: generation_config.max_new_tokens")
    finding = next(finding for finding in again().findings if finding.name == "max-new-tokens")
    assert finding.reason == "max-new-tokens/run/policy.yaml: generation_config.max_new_tokens"


def test_only_one_process_works_in_a_folder(gates: Gates, again: Again, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out").lock(), pytest.raises(RunFailed, match="is being worked on by another quantgate"):
        again()
    assert not gates.names


def test_a_folder_belongs_to_one_policy(gates: Gates, again: Again, tmp_path: Path) -> None:
    again()
    (tmp_path / "other.yaml").write_text(POLICY.replace("0.1}", "0.2}"))
    with pytest.raises(BadInput, match="was begun with another model, policy or version"):
        again(resume=True, policy="other.yaml")


def test_what_the_model_has_not_is_not_damaged(gates: Gates, again: Again) -> None:
    proof = again(only=("merge-off",))  # a tokenizer without merges
    finding = next(finding for finding in proof.findings if finding.name == "merge-off")
    assert finding.status == "not run" and finding.reason == "not of this model: the tokenizer has no merges"
    assert gates.names == ["int8"]


def test_experts_are_damaged_in_a_mixture_with_a_control_of_its_own(gates: Gates, again: Again, tmp_path: Path) -> None:
    gates.answers |= {"experts-int8": "PASS", "router-2bit": "PASS"}
    proof = again(only=("router-2bit",))
    assert statuses(proof) == {"int8": "harmless", "experts-int8": "harmless", "router-2bit": "missed"}
    mixture, control = tmp_path / "out" / "good" / "mixture", tmp_path / "out" / "experts-int8" / "run"
    assert [options.reference for options in gates.asked[1:]] == [str(mixture)] * 2
    assert [options.baseline for options in gates.asked] == [None, None, control]


def test_without_its_control_a_mixture_says_nothing_and_the_rest_does(gates: Gates, again: Again) -> None:
    gates.answers["experts-int8"] = RunFailed("no kernel")
    found = {f.name: f for f in again(only=("router-2bit", "max-new-tokens")).findings}
    assert found["max-new-tokens"].status == "caught" and found["experts-int8"].status == "not run"
    assert found["router-2bit"].reason == "the control could not be gated, so nothing can be proved: no kernel"
    assert gates.names == ["int8", "experts-int8", "max-new-tokens"]


def test_further_seeds_are_proofs_of_their_own(gates: Gates, again: Again, tmp_path: Path) -> None:
    proof = again(only=("max-new-tokens",), seeds=2)
    assert {f.name: f.seeds for f in proof.findings} == {"int8": ["harmless"], "max-new-tokens": ["caught"]}
    second = Proof.model_validate_json((tmp_path / "out" / "seed-2" / "proof.json").read_bytes())
    assert statuses(second) == statuses(proof)
    assert load_policy(tmp_path / "out" / "seed-2" / "policy.yaml").policy.sampling.seed == 1
    assert gates.asked[3].baseline == tmp_path / "out" / "seed-2" / "int8" / "run"
    gates.answers["max-new-tokens"] = RunFailed("too little memory")
    assert again(only=("max-new-tokens",), seeds=2, resume=True) == proof


def test_doses_are_bisected_once(gates: Gates, again: Again, tmp_path: Path) -> None:
    proof = again(only=("rtn-2bit",), weakest=True)
    (found,) = proof.weakest
    assert found.caught is None and found.tried == {"2 bits": "undecided"}  # what is stronger is not there
    assert "not even the strongest dose" in (tmp_path / "out" / "sensitivity.md").read_text()
    asked = len(gates.asked)
    assert again(only=("rtn-2bit",), weakest=True, resume=True) == proof and len(gates.asked) == asked

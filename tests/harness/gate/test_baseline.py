"""Baselines: a reference's samples are used again when nothing that an answer depends on differs, and only then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import HARDWARE, POLICY, finished, forget, make_items, make_job, stored

from harness.contract.errors import BadInput
from harness.contract.policy import parse_policy
from harness.contract.settings import Sampling, Serving
from harness.gate.baseline import mismatches
from harness.gate.job import Job
from harness.gate.pipeline import _use_baseline
from harness.runs.folder import RunFolder


@pytest.fixture
def earlier(tmp_path: Path) -> RunFolder:
    return finished(tmp_path / "earlier")


def found(earlier: RunFolder, job: Job) -> list[str]:
    return mismatches(earlier, job.sealed.policy, job.manifest)


def test_the_same_reference_under_the_same_settings_is_used_again(earlier: RunFolder, tmp_path: Path) -> None:
    assert found(earlier, make_job(tmp_path / "new")) == []


OTHER: dict[str, Any] = {
    **{"max_model_len": 2048, "dtype": "bfloat16", "kv_cache_dtype": "fp8", "kv_cache_memory_gib": 3.5},
    **{"max_num_seqs": 3, "max_logprobs": 9, "enforce_eager": True, "tensor_parallel_size": 2},
    **{"reasoning_parser": "glm45", "tool_call_parser": "hermes", "extra_args": ["--x"], "placement": "sequential"},
    **{"image": "vllm/vllm-openai", "image_args": ["--shm-size"]},
    **{"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.1},
    **{"frequency_penalty": 0.1, "max_tokens": 33, "seed": 8},
}
OF_NO_MATTER = {"ports": [8001, 8002], "ready_timeout_seconds": 5}


def with_setting(section: str, name: str, value: Any) -> str:
    known = {"max_tokens": 32, "seed": 7} if section == "sampling" else {}
    settings = ", ".join(f"{key}: {str(v).replace(chr(39), chr(34))}" for key, v in (known | {name: value}).items())
    return "\n".join(
        [*(line for line in POLICY.splitlines() if not line.startswith(section)), f"{section}: {{{settings}}}"]
    )


@pytest.mark.parametrize(
    ("section", "name"),
    [("serving", n) for n in Serving.model_fields if n not in OF_NO_MATTER]
    + [("sampling", n) for n in Sampling.model_fields],
)
def test_every_other_setting_is_named(earlier: RunFolder, tmp_path: Path, section: str, name: str) -> None:
    job = make_job(tmp_path / "new", with_setting(section, name, OTHER[name]))
    before, now = (getattr(getattr(p, section), name) for p in (parse_policy(POLICY).policy, job.sealed.policy))
    assert before != now
    assert found(earlier, job) == [f"{section} {name} ({json.dumps(before)}, now {json.dumps(now)})"]


@pytest.mark.parametrize("name", OF_NO_MATTER)
def test_ports_and_timeouts_do_not_matter(earlier: RunFolder, tmp_path: Path, name: str) -> None:
    assert found(earlier, make_job(tmp_path / "new", with_setting("serving", name, OF_NO_MATTER[name]))) == []
    patient = POLICY.replace("retries: 0", "retries: 5, min_tokens_per_second: 3")
    assert found(earlier, make_job(tmp_path / "patient", patient)) == []


def test_margins_do_not_matter(earlier: RunFolder, tmp_path: Path) -> None:
    assert found(earlier, make_job(tmp_path / "new", POLICY.replace("max_loss: 0.5", "max_loss: 0.01"))) == []


def test_settings_that_differ_only_at_their_end_differ(tmp_path: Path) -> None:
    def serving(last: str) -> str:
        return POLICY + f'serving: {{extra_args: ["--compilation-config", "{"x" * 100}{last}"]}}\n'

    earlier = finished(tmp_path / "earlier", serving("1"))
    assert found(earlier, make_job(tmp_path / "same", serving("1"))) == []
    (said,) = found(earlier, make_job(tmp_path / "new", serving("2")))
    assert said.startswith("serving extra_args")


GPU = HARDWARE["gpus"][0]
FACTS: dict[str, tuple[dict[str, Any], str]] = {
    "quantgate": ({"quantgate_version": "2"}, "quantgate 1"),
    "version": ({"versions": {"vllm": "0.33.0"}}, 'version of vllm ("0.32.0", now "0.33.0")'),
    "a version more": ({"versions": {"vllm": "0.32.0", "torch": "2"}}, 'version of torch (null, now "2")'),
    "a version less": ({"versions": {}}, 'version of vllm ("0.32.0", now null)'),
    "gpu": ({"hardware": HARDWARE | {"gpus": [GPU | {"name": "H200"}]}}, "hardware gpus"),
    "gpu memory": ({"hardware": HARDWARE | {"gpus": [GPU | {"memory_gib": 96.0}]}}, "hardware gpus"),
    "two gpus": ({"hardware": HARDWARE | {"gpus": [GPU, GPU]}}, "hardware gpus"),
    "no gpu": ({"hardware": HARDWARE | {"gpus": []}}, "hardware gpus"),
    "many gpus": ({"hardware": HARDWARE | {"gpus": [GPU] * 7 + [GPU | {"name": "H200"}]}}, "hardware gpus"),
    "processor": ({"hardware": HARDWARE | {"processor": "other"}}, 'hardware processor ("test", now "other")'),
    "cores": ({"hardware": HARDWARE | {"cpus": [0]}}, "hardware cores (2, now 1)"),
}


@pytest.mark.parametrize("what", FACTS)
def test_another_machine_or_version_is_named(tmp_path: Path, what: str) -> None:
    before: dict[str, Any] = {"hardware": HARDWARE | {"gpus": [GPU] * 8}} if what == "many gpus" else {}
    earlier = finished(tmp_path / "earlier", **before)
    (said,) = found(earlier, make_job(tmp_path / "new", **FACTS[what][0]))
    assert said.startswith(FACTS[what][1])


def test_what_else_a_machine_does_is_no_difference(earlier: RunFolder, tmp_path: Path) -> None:
    busy = HARDWARE | {"free_gib": 1.0, "cpus": [2, 3], "gpus": [GPU | {"free_gib": 3.0, "index": "5"}]}
    assert found(earlier, make_job(tmp_path / "new", hardware=busy)) == []


def test_another_reference_is_named(earlier: RunFolder, tmp_path: Path) -> None:
    job = make_job(tmp_path / "new")
    job.manifest.models["candidate"].sha256 = "another one, as always"
    assert found(earlier, job) == []
    job.manifest.models["reference"].sha256 = "cc"
    assert found(earlier, job) == ["reference model"]


def test_a_reference_whose_files_nobody_saw_is_another(tmp_path: Path) -> None:
    job, earlier = make_job(tmp_path / "new"), finished(tmp_path / "earlier")
    before = earlier.manifest()
    before.models["reference"].sha256 = job.manifest.models["reference"].sha256 = ""
    earlier.write_manifest(before)
    assert found(earlier, job) == ["reference model"]


def test_other_suites_or_items_are_named(earlier: RunFolder, tmp_path: Path) -> None:
    assert found(earlier, make_job(tmp_path / "a", POLICY.replace("{stub: {}}", "{stub: {limit: 3}}"))) == [
        "suites.stub"
    ]
    assert found(earlier, make_job(tmp_path / "b", items=make_items(7))) == ["items of stub"]
    more = make_job(tmp_path / "c", POLICY.replace("{stub: {}}", "{stub: {}, more: {}}"))
    assert found(earlier, more) == ["suites.more"]


def test_all_differences_are_named_at_once(earlier: RunFolder, tmp_path: Path) -> None:
    job = make_job(tmp_path / "new", with_setting("sampling", "seed", 8), quantgate_version="2", versions={})
    assert len(found(earlier, job)) == 3


Change = Callable[[RunFolder], Any]


def edit_manifest(change: Callable[[Any], Any]) -> Change:
    def edit(run: RunFolder) -> None:
        manifest = run.manifest()
        change(manifest)
        run.write_manifest(manifest)

    return edit


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (forget, "it was not finished"),
        (edit_manifest(lambda m: m.servers.clear()), "nothing was read back"),
        (edit_manifest(lambda m: m.servers.pop("reference")), "nothing was read back"),
        (edit_manifest(lambda m: m.servers["reference"].readback.clear()), "nothing was read back"),
        (edit_manifest(lambda m: m.servers["reference"].readback.update({"run.restarts": "restarted"})), "restarted"),
    ],
)
def test_a_run_that_proves_nothing_of_its_reference_is_not_used(
    earlier: RunFolder, tmp_path: Path, change: Change, says: str
) -> None:
    change(earlier)
    (said,) = found(earlier, make_job(tmp_path / "new"))
    assert says in said


def test_a_baseline_whose_samples_were_edited_is_refused(earlier: RunFolder, tmp_path: Path) -> None:
    path = earlier.samples_path("stub")
    path.write_text(path.read_text("utf-8").replace("1.0", "0.0", 1), "utf-8")
    job = make_job(tmp_path / "new")
    with pytest.raises(BadInput, match=r"earlier/samples/stub\.jsonl is not what the run wrote"):
        _use_baseline(job, earlier)
    assert not stored(job.run)


def test_a_baseline_whose_policy_was_edited_is_refused(earlier: RunFolder, tmp_path: Path) -> None:
    path = earlier.path / "policy.yaml"
    path.write_text(path.read_text("utf-8").replace("seed: 7", "seed: 8"), "utf-8")
    with pytest.raises(BadInput, match=r"earlier/policy\.yaml was edited"):
        found(earlier, make_job(tmp_path / "new", POLICY.replace("seed: 7", "seed: 8")))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run folder"):
        found(RunFolder(tmp_path / "nothing"), make_job(tmp_path / "new"))


def test_the_policy_decides_what_is_the_same_and_not_its_bytes(earlier: RunFolder, tmp_path: Path) -> None:
    spelled = POLICY.replace("{max_tokens: 32, seed: 7}", "{seed: 7, temperature: 0, max_tokens: 32}") + "# a remark\n"
    assert parse_policy(spelled).sha256 != parse_policy(POLICY).sha256
    assert found(earlier, make_job(tmp_path / "new", spelled)) == []

"""What would end a gate after an hour is said before anything is loaded, all of it at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from jobs import Model, Servers

from harness.contract.errors import BadInput, NotComparable, RunFailed
from harness.contract.policy import Policy, load_policy, parse_policy, shipped_policies
from harness.contract.samples import ROLES, Role
from harness.contract.settings import Serving
from harness.doctor.findings import Finding
from harness.gate import pipeline, preflight
from harness.gate.preflight import require_shape, require_targets, server_root, target_faults
from harness.runs.progress import Reporter
from suites.registry import make_suites

POLICY = """\
name: small
sampling: {max_tokens: 24}
serving: {max_model_len: 4096, max_logprobs: 64}
suites:
  cot: {tasks: {word_problems: {limit: 6}}}
  divergence: {trajectories: 3, max_tokens: 16, top_logprobs: 64}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What `doctor` finds here: nothing missing, until a test says so."""
    found: list[Finding] = []
    monkeypatch.setattr(preflight, "examine", lambda policy: found)
    return found


def policy_on(*targets: str) -> Policy:
    checks = "".join(f"  - {{metric: accuracy, on: {target}, max_loss: 0.01}}\n" for target in targets)
    return parse_policy(POLICY.partition("checks:\n")[0] + "checks:\n" + checks).policy


@pytest.mark.parametrize("name", shipped_policies())
def test_every_check_of_a_shipped_policy_has_a_target(name: str, tmp_path: Path) -> None:
    policy = load_policy(name).policy
    assert target_faults(policy, make_suites(policy, tmp_path)) == []


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("cots", r"check accuracy is on 'cots', which no suite is; did you mean 'cot'\?"),
        ("cots/*", r"on 'cots/\*', which no suite is; did you mean 'cot'\?"),
        ("swe", r"on 'swe', which no suite is; its suites: cot, divergence"),
        ("cot/gsm8k", "no task of cot is called so; its tasks: word_problems"),
        ("cot", ""),
        ("cot/word_*", ""),
        ("divergence/chat-en", ""),  # its tasks are known when its items are
    ],
)
def test_a_check_that_speaks_of_nothing_is_named(target: str, says: str, tmp_path: Path) -> None:
    policy = policy_on("cot", target)
    if says:
        with pytest.raises(BadInput, match=says):
            preflight.preflight(policy, make_suites(policy, tmp_path), tmp_path, None)
    else:
        preflight.preflight(policy, make_suites(policy, tmp_path), tmp_path, None)


def test_all_faults_are_said_at_once(machine: list[Finding], tmp_path: Path) -> None:
    machine += [
        Finding("data", "missing", "cot gsm8k (gsm8k)", "set QUANTGATE_DATA"),
        Finding("memory", "missing", "1 of 2 GiB free", "lower it"),  # of now, and not of when servers start
        Finding("vllm", "warning", "another version", "make"),
    ]
    policy = policy_on("cots", "ruler")
    with pytest.raises(BadInput) as caught:
        preflight.preflight(policy, make_suites(policy, tmp_path), tmp_path, None)
    said = str(caught.value)
    assert "'cots'" in said and "'ruler'" in said and "data: cot gsm8k (gsm8k) (set QUANTGATE_DATA)" in said
    assert "memory" not in said and "vllm" not in said and "\n" not in said


@pytest.mark.parametrize("role", [None, "attached"])
def test_servers_that_run_already_need_no_vllm_here(
    machine: list[Finding], able: Servers, tmp_path: Path, role: str | None
) -> None:
    machine.append(Finding("vllm", "missing", "not installed here", "run `make`"))
    policy = parse_policy(POLICY).policy
    if role:
        look(able, tmp_path)
    else:
        with pytest.raises(BadInput, match="vllm: not installed here"):
            preflight.preflight(policy, make_suites(policy, tmp_path), tmp_path, None)


def test_a_run_needs_some_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LEAST_FREE_GIB", 1e9)
    policy = parse_policy(POLICY).policy
    with pytest.raises(BadInput, match=r"GiB are free, a run takes 1e\+09 \(--out names another folder\)"):
        preflight.preflight(policy, make_suites(policy, tmp_path), tmp_path / "not" / "there", None)


def test_a_target_must_be_there_once_items_are_made() -> None:
    policy = policy_on("cot", "divergence/chat-*")
    require_targets(policy, ["cot/word_problems", "divergence/chat-en"])
    with pytest.raises(BadInput, match=r"on 'divergence/chat-\*', and nothing of that name is asked; asked: cot/word"):
        require_targets(policy, ["cot/word_problems", "divergence/code-en"])


# -- servers that run already ------------------------------------------------------------------------------------


def urls(servers: Servers) -> dict[Role, str]:
    return {role: servers[role].url for role in ROLES}


def look(servers: Servers, tmp_path: Path) -> None:
    policy = parse_policy(POLICY).policy
    preflight.preflight(policy, make_suites(policy, tmp_path), tmp_path, urls(servers))


def of(server: FakeServer) -> Model:
    assert isinstance(server.handler, Model)
    return server.handler


@pytest.fixture
def able(servers: Servers) -> Servers:
    for role in ROLES:
        of(servers[role]).max_logprobs = 64
    return servers


def test_servers_that_can_do_it_are_asked_little(able: Servers, tmp_path: Path) -> None:
    look(able, tmp_path)
    assert all(len(able[role].posts) == 1 for role in ROLES)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_logprobs": 20}, "suite divergence keeps 64 log-probabilities, serving.max_logprobs is 20"),
        ({"models": [{"id": "quantgate", "max_model_len": 16}]}, "tokens of context, serving.max_model_len is 16"),
    ],
)
def test_a_server_that_is_too_small_is_found_in_seconds(
    able: Servers, tmp_path: Path, role: Role, change: dict[str, Any], says: str
) -> None:
    vars(of(able[role])).update(change)
    with pytest.raises(BadInput, match=f"the {role} server at {able[role].url} is too small: .*{says}"):
        look(able, tmp_path)


def test_versions_that_differ_are_found_in_seconds(able: Servers, tmp_path: Path) -> None:
    of(able["candidate"]).version = "0.33.0"
    with pytest.raises(NotComparable, match=r"version: reference 0\.32\.0, candidate 0\.33\.0"):
        look(able, tmp_path)


def test_a_server_that_is_not_there_is_named(able: Servers, tmp_path: Path) -> None:
    of(able["candidate"]).models = []
    with pytest.raises(RunFailed, match="lists no model at /v1/models"):
        look(able, tmp_path)
    able["reference"].handler = lambda path, body: None
    with pytest.raises(RunFailed, match=f"no usable server at {able['reference'].url}"):
        look(able, tmp_path)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", " "])
def test_a_url_may_end_in_v1(end: str) -> None:
    assert server_root(f"http://host:8000{end}", "--candidate-url") == "http://host:8000"
    assert server_root(f"https://host/models/a{end}", "--candidate-url") == "https://host/models/a"


@pytest.mark.parametrize("url", ["host:8000", "8000", "", "ftp://host", "http://", "http://h/v1?x=1", "http://[::"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match=r"--reference-url is .*; give the server's root"):
        server_root(url, "--reference-url")


def test_one_server_under_two_spellings_is_one_server(tmp_path: Path) -> None:
    options = pipeline.GateOptions("m", candidate_url="http://h:1/v1", reference_url="http://h:1/", out=tmp_path)
    with pytest.raises(NotComparable, match="both URLs are the same server"):
        pipeline.run_gate(options, Reporter())


# -- the model's shape -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "serving", "says"),
    [
        ({"num_attention_heads": 9, "num_key_value_heads": 3}, {"tensor_parallel_size": 2}, "its 9 attention and 3 "),
        ({"num_attention_heads": 16, "num_key_value_heads": 3}, {"tensor_parallel_size": 8}, "do not split over"),
        ({"num_attention_heads": 32, "num_key_value_heads": 4}, {"tensor_parallel_size": 8}, ""),
        ({"text_config": {"num_attention_heads": 9}}, {"tensor_parallel_size": 2}, "its 9 attention and 9 key-value"),
        ({}, {"tensor_parallel_size": 8}, ""),
        ({"max_position_embeddings": 2048}, {"max_model_len": 4096}, "has a context of 2048 tokens"),
        ({"max_position_embeddings": 4096}, {"max_model_len": 4096}, ""),
        ({"max_position_embeddings": 2048, "rope_scaling": {"factor": 4}}, {"max_model_len": 4096}, ""),
        ({"max_position_embeddings": 2048}, {"max_model_len": 4096, "extra_args": ("--hf-overrides={}",)}, ""),
    ],
)
def test_heads_and_context_are_held_against_the_policy(
    config: dict[str, Any], serving: dict[str, Any], says: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    if says:
        with pytest.raises(BadInput, match=f"model M.*{says}"):
            require_shape(Serving(**serving), {"M": tmp_path})
    else:
        require_shape(Serving(**serving), {"M": tmp_path})

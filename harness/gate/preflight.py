"""What would end a gate later is found before anything is loaded: targets of checks, machine, servers, shape.

All of it is looked at before the first complaint, so that one try names everything.
"""

from __future__ import annotations

import asyncio
import difflib
import fnmatch
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from harness.contract.errors import BadInput, GateError, NotComparable, RunFailed
from harness.contract.policy import Policy
from harness.contract.samples import Role
from harness.contract.secrets import hide_keys
from harness.contract.settings import Sampling, Serving
from harness.contract.whole_files import read_json
from harness.doctor.findings import examine
from harness.endpoint.client import Endpoint, EndpointError
from harness.parity.asking import max_logprobs
from harness.parity.readback import max_model_len, served_name
from harness.parity.server_config import UNKNOWN
from harness.serving.hardware import GIB
from harness.serving.launch import splits
from suites.base import Suite
from suites.registry import make_suites

NOT_OURS = ("memory", "runs", "cache", "container engine")
"""Findings of `quantgate doctor` that this gate need not have: of now and not of when servers start, of folders that it
may not use, of an engine that suites ask for themselves."""
OF_SERVERS = ("vllm", "devices")
"""Those that do not count where servers run already."""
OWN_CLIENTS = "it is asked by a program that takes no login in a URL; give one without, or leave the suite out"
LEAST_FREE_GIB = 0.5
"""Disk that a run takes at the least: answers, log-probabilities and the report."""
SHAPED_BY_FLAGS = ("--hf-overrides", "--rope-scaling", "--hf-config-path", "--speculative-config")
"""With these in extra_args config.json does not tell what vLLM will make of the model."""


def preflight(policy: Policy, suites: Collection[Suite], run: Path, urls: Mapping[Role, str] | None) -> None:
    """Check what a gate needs before it loads anything.

    Raises:
        BadInput: everything that is wrong with policy, machine or servers, in one line.
        NotComparable: the versions of the servers differ. RunFailed: a server does not answer.
    """
    faults = [*target_faults(policy, suites), *_machine_faults(policy, run, attached=urls is not None)]
    if urls:
        faults += asyncio.run(_server_faults(policy, urls))
    if faults:
        raise BadInput("; ".join(faults))


def target_faults(policy: Policy, suites: Collection[Suite]) -> list[str]:
    """Checks that speak of nothing the policy asks: of a suite it does not name, or of no task of one."""
    tasks = {suite.name: suite.tasks for suite in suites}
    found = []
    for check in policy.checks:
        suite, _, pattern = check.on.partition("/")
        if suite not in policy.suites:
            near = difflib.get_close_matches(suite, policy.suites, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"its suites: {', '.join(policy.suites)}"
            found.append(f"policy {policy.name}: check {check.metric} is on '{check.on}', which no suite is; {hint}")
        elif pattern and tasks.get(suite) and not fnmatch.filter(tasks[suite], pattern):
            found.append(
                f"policy {policy.name}: check {check.metric} is on '{check.on}', and no task of {suite} is called so; "
                f"its tasks: {', '.join(tasks[suite])}"
            )
    return found


def require_targets(policy: Policy, planned: Collection[str]) -> None:
    """Once items are made every task is known. Raises BadInput: a check speaks of none of them ("suite/task")."""
    for check in policy.checks:
        pattern = check.on if "/" in check.on else f"{check.on}/*"
        if not fnmatch.filter(planned, pattern):
            raise BadInput(
                f"policy {policy.name}: check {check.metric} is on '{check.on}', and nothing of that name is asked; "
                f"asked: {', '.join(sorted(planned))}"
            )


def require_shape(serving: Serving, models: Mapping[str, Path]) -> None:
    """Check that checkpoints can be served as the policy says. Raises BadInput: heads or context do not fit."""
    ranks = serving.tensor_parallel_size
    for name, folder in models.items():
        config = read_json(folder / "config.json")
        inner = config.get("text_config")
        text: dict[str, Any] = {**config, **(inner if isinstance(inner, dict) else {})}
        heads, keys = (text.get(f"num_{what}_heads") for what in ("attention", "key_value"))
        if not (splits(heads, ranks) and splits(keys, ranks, either=True)):
            raise BadInput(
                f"model {name}: its {heads} attention and {keys or heads} key-value heads do not split over "
                f"serving.tensor_parallel_size {ranks}"
            )
        longest = text.get("max_position_embeddings")
        scaled = any(text.get(key) for key in ("rope_scaling", "rope_parameters"))
        by_flags = any(argument.split("=")[0] in SHAPED_BY_FLAGS for argument in serving.extra_args)
        if isinstance(longest, int) and 0 < longest < serving.max_model_len and not (scaled or by_flags):
            raise BadInput(
                f"model {name} has a context of {longest} tokens (max_position_embeddings), "
                f"serving.max_model_len is {serving.max_model_len}"
            )


def server_root(url: str, option: str) -> str:
    """A server's root out of what people give: without a slash at its end, and without /v1. Raises BadInput."""
    root = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parsed = httpx.URL(root)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise BadInput(f"{option} is {hide_keys(url)}; give the server's root, such as http://127.0.0.1:8000")
    return root


def _machine_faults(policy: Policy, run: Path, attached: bool) -> Iterator[str]:
    skipped = (*NOT_OURS, *(OF_SERVERS if attached else ()))
    for found in examine(policy):
        if found.state == "missing" and found.name not in skipped:
            yield f"{found.name}: {found.detail} ({found.way_out})"
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / GIB
    if not os.access(there, os.W_OK):
        yield f"{there} cannot be written to (--out names another folder)"
    elif free < LEAST_FREE_GIB:
        yield f"{there}: {free:.1f} GiB are free, a run takes {LEAST_FREE_GIB:g} (--out names another folder)"


def _strangers(policy: Policy, endpoint: Endpoint) -> list[str]:
    """Suites whose requests are another program's, where only our client knows how to log in."""
    return [name for name in ("speed", "swebench") if name in policy.suites] if endpoint.has_login else []


async def _server_faults(policy: Policy, urls: Mapping[Role, str]) -> list[str]:
    """What servers that run already cannot do of what the policy asks."""
    faults, versions = [], {}
    for role, url in urls.items():
        async with Endpoint(url, await served_name(url), policy.requests, Sampling()) as endpoint:
            faults += [f"suite {n} cannot log in to the {role}: {OWN_CLIENTS}" for n in _strangers(policy, endpoint)]
            try:
                versions[role] = str((await endpoint.get_json("/version")).get("version", UNKNOWN))
                context = await max_model_len(endpoint)
                most = await max_logprobs(endpoint, [1, 2])
            except EndpointError as error:
                raise RunFailed(f"the {role} server gives no usable answer: {error}") from None
        serving: dict[str, Any] = {} if context is None else {"max_model_len": context}
        serving |= {} if most == UNKNOWN else {"max_logprobs": int(most)}
        has = policy.serving.model_copy(update=serving)
        try:
            make_suites(policy.model_copy(update={"serving": has}), Path())
        except GateError as error:
            faults.append(f"the {role} server at {endpoint.url} is too small: {error} (restart it with more)")
    if len(set(versions.values())) > 1 and not any(fnmatch.fnmatchcase("version", p) for p in policy.allow_different):
        listed = ", ".join(f"{role} {version}" for role, version in versions.items())
        raise NotComparable(f"not comparable: version: {listed} (allow_different in the policy lists what may differ)")
    return faults

"""Jobs for the tests of asking and of baselines: a suite of stubs, scripted vLLM servers, run folders of both."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fake_server import FakeServer, FakeVllm

from harness.contract.items import ItemRef
from harness.contract.model_facts import ModelFacts
from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES, Item, Role, Sample
from harness.endpoint.client import Endpoint
from harness.gate.job import Job, order_items
from harness.gate.questions import ask_everything
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest, ServerFacts
from harness.runs.progress import Reporter
from suites.base import Suite, make_item, make_sample

POLICY = """\
name: test
sampling: {max_tokens: 32, seed: 7}
requests: {concurrency: 4, retries: 0}
suites: {stub: {}}
checks: [{metric: accuracy, on: stub/*, max_loss: 0.5}]
"""
SEED = 7
BY_SEED = POLICY + "noise_floor: {by: seed, items: 2}\n"
BY_SERVER = POLICY + "noise_floor: {by: server, items: 2}\n"
ROLES_AND_NOISE: tuple[Role, ...] = (*ROLES, "noise")
SEQUENTIAL = "serving: {placement: sequential}\n"
ITEMS = {f"{i:03d}" for i in range(6)}
"""Names of the items that a job has unless it is told otherwise."""
HARDWARE: dict[str, Any] = {
    "processor": "test",
    "cpus": [0, 1],
    "free_gib": 9.0,
    "gpus": [{"name": "H100", "memory_gib": 80.0}],
}

Servers = dict[Role, FakeServer]


class StubSuite(Suite):
    """One chat an item; an answer that says "right" is right."""

    name = "stub"
    context_needed = 33

    def __init__(self) -> None:
        pass

    def items(self, tokenizer: object) -> list[Item]:
        return make_items(6)

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        completion = await endpoint.chat(item.prompt)
        return make_sample(self.name, item, role, completion, score=float(completion.text == "right"), answer=None)


class Model(FakeVllm):
    """Says "right", but "wrong" to the prompts in `wrong`, and changes in the middle of a run when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.models = [{"id": "quantgate", "max_model_len": 4096}]
        self.wrong: set[str] = set()
        self.changes: tuple[int, Mapping[str, Any]] | None = None
        """(after so many answers to items, attributes that are then others)."""
        self._lock = threading.Lock()
        self._answers = 0

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        with self._lock:
            prompt = prompt_of(body)
            if prompt.startswith("ask "):
                if self.changes and self._answers >= self.changes[0]:
                    vars(self).update(self.changes[1])
                self._answers += 1
            reply = super().__call__(path, body)
        if path == "/v1/chat/completions" and isinstance(reply, dict):
            reply["choices"][0]["message"]["content"] = "wrong" if prompt in self.wrong else "right"
        return reply


def prompt_of(body: Mapping[str, Any]) -> str:
    messages = body.get("messages")
    return str(messages[0]["content"]) if messages else ""


def asked(server: FakeServer) -> Counter[tuple[str, int]]:
    """(prompt, seed) of every item that a server was asked; reading back is no item."""
    bodies = [body for path, body in server.posts if path == "/v1/chat/completions"]
    return Counter((prompt_of(b), b["seed"]) for b in bodies if prompt_of(b).startswith("ask "))


def model(servers: Servers, role: Role) -> Model:
    """What answers for this role."""
    handler = servers[role].handler
    assert isinstance(handler, Model)
    return handler


def asked_nothing(servers: Servers) -> bool:
    return not any(asked(server) for server in servers.values())


def make_items(count: int, task: str = "t", repeats: int = 1) -> list[Item]:
    made = [make_item(task, f"{i:03d}", [{"role": "user", "content": f"ask {task} {i}"}]) for i in range(count)]
    return [item.model_copy(update={"repeat": r}) for item in made for r in range(repeats)]


def refs(items: Sequence[Item]) -> list[ItemRef]:
    """Items as they are planned: by name, without their prompts."""
    return [ItemRef(i.task, i.item, i.repeat, i.prompt_sha256, 0) for i in items]


def make_job(
    path: Path, policy: str = POLICY, items: Sequence[Item] = (), suite: Suite | None = None, **facts: Any
) -> Job:
    """A job in a new run folder, or one that goes on with what is in it."""
    run, sealed, chosen = RunFolder(path), parse_policy(policy), suite or StubSuite()
    if run.manifest_path.exists():
        manifest = run.manifest()
    else:
        models: dict[Role, ModelFacts] = {
            "reference": ModelFacts(name="r", path="", sha256="aa"),
            "candidate": ModelFacts(name="c", path="", sha256="bb", quantization="gptq"),
        }
        known: dict[str, Any] = {"run_id": path.name, "created": "2026-01-01", "quantgate_version": "1", "command": []}
        known |= {"models": models, "hardware": HARDWARE, "versions": {"vllm": "0.32.0"}} | facts
        manifest = Manifest(**known, policy_name="test", policy_sha256=sealed.sha256)
        run.create(manifest, sealed)
        manifest.items_sha256[chosen.name] = run.write_items(chosen.name, items or make_items(6))
        run.write_manifest(manifest)
    job = Job(run, sealed, manifest, [chosen], {}, Reporter())
    job.items[chosen.name] = order_items(chosen, run.items(chosen.name), sealed)
    return job


def prompts(job: Job, role: Role) -> list[str]:
    """What a role is asked, in the order."""
    return [job.run.load("stub", ref).prompt[0]["content"] for ref in job.items["stub"][role]]


def finish(job: Job, servers: Mapping[Role, FakeServer] | None = None) -> Job:
    """Ask everything of these servers and seal the samples, as the gate does."""
    ask_everything(job, None if servers is None else urls(servers))
    job.manifest.samples = job.run.sample_files()
    job.save()
    return job


def urls(servers: Mapping[Role, FakeServer]) -> dict[Role, str]:
    return {role: server.url for role, server in servers.items()}


def stored(run: RunFolder) -> Counter[tuple[str, str]]:
    """(role, item) of every sample."""
    return Counter((sample.role, sample.item) for sample in run.samples())


def forget(run: RunFolder, *roles: Role, keep: int = 0) -> None:
    """What a killed run had not yet been answered: no sample of these roles but the first `keep`, and no seal."""
    manifest = run.manifest()
    manifest.samples = {}
    run.write_manifest(manifest)
    for path in (run.path / "samples").glob("*.jsonl"):
        lines, seen = [], Counter[str]()
        for line in path.read_text("utf-8").splitlines(keepends=True):
            role = Sample.model_validate_json(line).role
            seen[role] += 1
            if role not in roles or seen[role] <= keep:
                lines.append(line)
        path.write_text("".join(lines), "utf-8")


def finished(path: Path, policy: str = POLICY, errors: tuple[str, ...] = (), **facts: Any) -> RunFolder:
    """A run in which everything was answered, the noise floor in the way of the policy, without any server."""
    job = make_job(path, policy, **facts)
    log = job.run.log("stub")
    for role in ROLES_AND_NOISE:
        for item in job.items["stub"].get(role, ()):
            names: dict[str, Any] = {"suite": "stub", "task": item.task, "item": item.item, "role": role}
            ended = {"error": "timeout: x"} if item.item in errors else {"score": 1.0, "text": f"{role} of {path.name}"}
            log.append(Sample(**names, prompt_sha256=item.prompt_sha256, **ended))
    log.close()
    readback = {"model": "aa", "version": "0.32.0", "run.restarts": "none"}
    served = ROLES_AND_NOISE if "by: server" in policy else ROLES
    job.manifest.servers = {role: ServerFacts(url=f"http://{role}", readback=readback) for role in served}
    noise = job.sealed.policy.noise_floor
    job.manifest.noise_by = noise.by if noise else None
    job.manifest.samples = job.run.sample_files()
    job.save()
    return job.run

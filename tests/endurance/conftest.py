"""Checkpoints, a policy, two good servers, and what a gate finds on them when nothing disturbs it.

`record` keeps what was injected how often and what came of it; the table is printed when the tests are through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from harness.contract.samples import ROLES, Role
from tests.endurance.gates import POLICY, Gate
from tests.endurance.good_server import GoodModel

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
ROWS: list[tuple[str, ...]] = []
HEADS = ("fault", "how injected", "how often", "what came of it", "lost")


@pytest.fixture
def record() -> Callable[..., None]:
    """Keep a row of the table in docs/reliability.md."""

    def keep(*row: str) -> None:
        ROWS.append(row)
        if path := os.environ.get("QUANTGATE_SOAK_ROWS"):
            with Path(path).open("a") as file:
                file.write(json.dumps(row) + "\n")

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ROWS:
        terminalreporter.section("faults")
        for row in (HEADS, ("---",) * len(HEADS), *ROWS):
            terminalreporter.write_line(f"| {' | '.join(row)} |")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny checkpoints of one tokenizer, which no server loads; made without torch, whose start takes a while."""
    folder = tmp_path_factory.mktemp("models")
    for number, role in enumerate(ROLES):
        save_checkpoint(folder / role, number)
    return folder


def save_checkpoint(folder: Path, seed: int) -> None:
    """One layer of a Llama with a token a byte."""
    folder.mkdir()
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)} | {"<eos>": 256}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    shapes = {"embed_tokens": (257, 32), "layers.0.self_attn.q_proj": (32, 32), "layers.0.mlp.up_proj": (64, 32)}
    draw = np.random.default_rng(seed)
    weights = {f"model.{name}.weight": draw.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors")
    config = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 4096}
    config |= {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 257,
        "architectures": ["LlamaForCausalLM"],
    }
    files = {"config.json": config, "generation_config.json": {"eos_token_id": 256}}
    files["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "endurance.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def good() -> Iterator[dict[Role, FakeServer]]:
    """A good server for each role."""
    with FakeServer() as reference, FakeServer() as candidate:
        reference.handler, candidate.handler = GoodModel("reference", 0.01), GoodModel("candidate", 0.01)
        yield {"reference": reference, "candidate": candidate}


@pytest.fixture
def make_gate(tmp_path: Path, models: Path, policy: Path) -> Callable[..., Gate]:
    """A gate with a run folder of its own."""

    def make(name: str, urls: dict[str, str] | None = None, **settings: str) -> Gate:
        environment = {"QUANTGATE_CACHE": str(tmp_path / "cache"), **settings}
        return Gate(tmp_path / name, models, policy, urls or {}, environment)

    return make


@pytest.fixture(scope="session")
def undisturbed(models: Path, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """The run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with FakeServer() as reference, FakeServer() as candidate:
        reference.handler, candidate.handler = GoodModel("reference", 0.01), GoodModel("candidate", 0.01)
        urls: dict[str, str] = {role: server.url for role, server in zip(ROLES, (reference, candidate), strict=True)}
        gate = Gate(folder / "run", models, policy, urls, {"QUANTGATE_CACHE": str(folder / "cache")})
        status = gate.wait(gate.start())
    assert status == 0, gate.said()
    return gate

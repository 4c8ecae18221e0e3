"""No secret reaches a run folder, a log or a terminal, and a policy that holds one is refused at the door."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fake_server import FakeServer, Reply, ask
from jobs import Model
from tiny_llama import save_tiny_llama

from harness.contract.errors import BadInput
from harness.contract.policy import load_policy
from harness.contract.secrets import hide_keys, hide_secrets, secret_in, without_login, without_secrets
from harness.endpoint.client import Endpoint
from harness.runs.folder import RunFolder

POLICY = """\
name: planted
sampling: {max_tokens: 32}
requests: {concurrency: 4, retries: 0}
suites: {cot: {tasks: {word_problems: {limit: 4}}}}
checks: [{metric: accuracy, on: cot/*, max_loss: 0.5}]
"""
PLANTED = {
    "HF_TOKEN": "hf_PLANTEDplantedPLANTED0001",
    "OPENAI_API_KEY": "sk-planted-PLANTED-planted-0002",
    "AWS_SECRET_ACCESS_KEY": "PLANTED/planted+0003",
    "GITHUB_TOKEN": "ghp_PLANTEDplantedPLANTED0004",
    "MY_PASSWORD": "PLANTEDpassword0005",
}
LOGIN = "PLANTEDlogin0006"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny checkpoints that differ, with a chat template."""
    folder = tmp_path_factory.mktemp("models")
    made = save_tiny_llama(folder / "reference"), save_tiny_llama(folder / "candidate", intermediate_size=64)
    for model in made:
        (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    return made


def files_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    yield from ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def with_login(server: FakeServer) -> str:
    return server.url.replace("://", f"://user:{LOGIN}@")


@pytest.mark.slow
def test_planted_secrets_reach_no_file_of_a_run_and_no_terminal(tmp_path: Path, models: tuple[Path, Path]) -> None:
    """A whole gate as a user runs it, of servers one of which fails now and then; every file of the run is searched."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    command = [sys.executable, "-m", "harness", "gate", str(models[1]), "--reference", str(models[0])]
    command += ["--policy", str(tmp_path / "policy.yaml"), "--out", str(tmp_path / "run")]
    environment = {**os.environ, **PLANTED, "QUANTGATE_CACHE": str(tmp_path / "cache")}
    with FakeServer() as reference, FakeServer() as candidate:
        reference.handler, good, failed = Model(), Model(), list[int]()

        def sometimes(path: str, body: dict[str, Any]) -> Any:
            if path == "/v1/chat/completions" and body["max_tokens"] == 32 and not failed:  # an item's, not a probe's
                failed.append(1)
                return Reply({"error": {"message": "down"}}, 500)
            return good(path, body)

        candidate.handler = sometimes
        command += ["--reference-url", with_login(reference), f"--candidate-url={with_login(candidate)}"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        said = ended.stdout + ended.stderr
    run = RunFolder(tmp_path / "run")
    assert failed and "answers 500" in "".join(s.error or "" for s in run.samples()), said
    assert ended.returncode in (0, 1, 2) and (run.report_path / "index.html").exists(), said
    needles = [*PLANTED.values(), LOGIN, base64.b64encode(f"user:{LOGIN}".encode()).decode()]
    searched = list(files_of(run.path))
    assert len(searched) > 10
    for path, data in searched:
        assert not [needle for needle in needles if needle.encode() in data], path
    assert not [needle for needle in needles if needle in said]
    manifest = run.manifest()
    assert all("http://(hidden)@127.0.0.1" in word for word in manifest.command[-2:])
    assert manifest.servers["candidate"].url == candidate.url


class Guarded(BaseHTTPRequestHandler):
    """Answers those who log in, and keeps what they said."""

    seen: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.seen.append(self.headers["authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"version": "1"}')

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_login_is_sent_and_stands_in_no_error() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://user:p%40ss@127.0.0.1:{server.server_address[1]}"

        async def both(endpoint: Endpoint) -> None:
            for client in (endpoint, endpoint.with_seed(1)):
                await client.get_json("/version")
                assert client.has_login and "p%40ss" not in client.url and "user" not in client.url

        ask(url, both)
        server.shutdown()
    assert Guarded.seen == ["Basic " + base64.b64encode(b"user:p@ss").decode()] * 2


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('serving: {extra_args: ["--api-key", "PLANTED"]}', "--api-key"),
        ('serving: {extra_args: ["--api-key=PLANTED"]}', "--api-key"),
        ('serving: {image: i, image_args: ["-e", "HF_TOKEN=PLANTED"]}', "HF_TOKEN"),
        ("serving: {dtype: auto}  # hf_PLANTEDplantedPLANTED0001", "a key"),
        ("serving: {dtype: auto}  # from https://me:PLANTED@host/policy", "login"),
    ],
)
def test_a_policy_with_a_secret_is_refused_and_its_value_is_not_said(tmp_path: Path, lines: str, named: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{POLICY}{lines}\n")
    with pytest.raises(BadInput, match="holds a secret") as error:
        load_policy(path)
    assert named in str(error.value) and "PLANTED" not in str(error.value)


def test_flags_that_only_speak_of_tokens_are_no_secrets(tmp_path: Path) -> None:
    words = ["--max-num-batched-tokens=2048", "--stop-token-ids", "2", "-e", "HF_TOKEN", "--chat-template", "a@b"]
    words += ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}']
    path = tmp_path / "p.yaml"
    path.write_text(f"{POLICY}serving: {{image: r/i@sha256:00, extra_args: {json.dumps(words)}}}\n")
    assert list(load_policy(path).policy.serving.extra_args) == words == hide_secrets(words)
    assert secret_in("", words) is None


def test_what_looks_like_a_secret_is_hidden() -> None:
    assert hide_keys("at http://u:p@ss@h:1/x of hf_" + "a" * 30) == "at http://(hidden)@h:1/x of (hidden)"
    assert without_login("http://u:p@ss@h:1/a@b") == "http://h:1/a@b"
    assert hide_keys("sk-learn, hf_hub, a@b.c") == "sk-learn, hf_hub, a@b.c"
    kept = {"PATH": "/bin", "MODAL_TOKEN_SECRET": "m", "TOKENIZERS_PARALLELISM": "0", "PROXY": "http://h:1"}
    assert without_secrets(kept | PLANTED | {"X": "hf_" + "a" * 30}, keep="MODAL_") == kept
    assert "MODAL_TOKEN_SECRET" not in without_secrets(kept)

"""The benchmark of scoring: both ways get the same lists, and numbers that differ are not overlooked."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import FakeServer, Reply, chat_reply, score_reply
from safetensors.numpy import save

from benchmarks.scoring import main

TOP = 2
PATH = "/v1/quantgate/score"


def logprob(token: int, rank: int) -> float:
    return -math.log(4 + token % 5 + rank)


def row(token: int) -> tuple[list[int], list[float]]:
    """The token itself, then the likeliest two, which are others."""
    return [token, 900, 901], [-30.0, logprob(token, 0), logprob(token, 1)]


class Model:
    """A server with both ways; `off` is added to the packed numbers."""

    def __init__(self, off: float = 0.0, route: bool = True) -> None:
        self.off, self.route = off, route

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        if path == PATH and not body:
            return {"quantgate_score": 1} if self.route else Reply({}, 404)
        if path == PATH:
            rows = [row(token) for token in body["token_ids"][body["start"] :]]
            ids = np.array([ids for ids, _ in rows], np.int32)
            logprobs = np.array([logprobs for _, logprobs in rows], np.float32) + np.float32(self.off)
            return Reply(save({"ids": ids, "logprobs": logprobs}))
        if path == "/v1/completions":
            rows = [row(token) for token in body["prompt"][1:]]
            entries = [{str(i): {"logprob": v} for i, v in zip(*pair, strict=True)} for pair in rows]
            return score_reply([None, *entries])
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "a", "object": "model", "created": 1, "owned_by": "vllm"}]}
        return {"version": "0.32.0"} if path == "/version" else chat_reply(prompt_ids=[5, 6, 7, 8])


def run(server: FakeServer, out: Path) -> tuple[int, dict[str, Any]]:
    words = [
        "--url",
        server.url,
        "--out",
        str(out),
        "--positions",
        "80",
        "--length",
        "11",
        "--turns",
        "2",
        "--top",
        "2",
    ]
    status = main(words)
    return status, json.loads(out.read_text("utf-8"))


def test_both_ways_score_the_same_lists(server: FakeServer, tmp_path: Path) -> None:
    server.handler = Model()
    status, found = run(server, tmp_path / "scoring.json")
    assert status == 0 and found["alone"]["equal"] and found["alone_plain_twice"]["equal"]
    assert found["under_load"]["equal_lists"] == found["under_load"]["lists"] == 8
    assert [turn["first"] for turn in found["turns"]] == ["plain", "fast"]
    assert all(turn[way]["positions"] == 40 for turn in found["turns"] for way in ("plain", "fast"))
    assert found["ratio"] > 0 and found["server"]["vllm"] == "0.32.0"
    plain = [body["prompt"] for path, body in server.posts if path == "/v1/completions"]
    fast = [body["token_ids"] for path, body in server.posts if path == PATH]
    once = sorted(map(tuple, plain[6:])), sorted(map(tuple, fast[4:]))  # 3 alone, plain twice; fast warms up
    assert once[0] == once[1] and all(len(tokens) == 11 for tokens in once[0])


def test_numbers_that_differ_are_told(server: FakeServer, tmp_path: Path) -> None:
    server.handler = Model(off=-1e-5)
    status, found = run(server, tmp_path / "scoring.json")
    assert status == 1 and not found["alone"]["equal"] and found["alone_plain_twice"]["equal"]
    assert found["alone"]["largest_difference_nats"] == pytest.approx(1e-5, rel=0.1)
    assert found["alone"]["same_likeliest"] == 1.0


def test_a_server_without_the_route_is_not_measured(server: FakeServer, tmp_path: Path) -> None:
    server.handler = Model(route=False)
    with pytest.raises(SystemExit, match="no fast way"):
        run(server, tmp_path / "scoring.json")

"""The client's benchmark: what it computes, what it refuses, and that its three ways ask one server the same."""

import argparse
import asyncio
import json
import sys
import threading
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, chat_reply

from benchmarks import client, client_cost
from benchmarks.client import ask_bare, bench_command, main, questions, read_bench, require_same_prompts, summary
from benchmarks.suite_run import Figures, Workload, ask_suite, figures, make_workload
from harness.contract.errors import BadInput, RunFailed
from harness.contract.items import index_items, write_items
from suites.base import make_item

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
BENCH: dict[str, Any] = {
    "completed": 12,
    "failed": 0,
    "total_input_tokens": 36,
    "total_output_tokens": 24,
    "duration": 2.0,
    "output_throughput": 99.0,
    "p50_e2el_ms": 250.0,
    "p99_e2el_ms": 1500.0,
}
"""A result file of `vllm bench serve`, shortened. Its own throughput is not used: ours is over the same window."""


def asked(**changes: Any) -> argparse.Namespace:
    values: dict[str, Any] = {
        "url": "http://127.0.0.1:1",
        "model": "quantgate",
        "tokenizer": "folder",
        "concurrency": 4,
        "items": 12,
        "max_tokens": 9,
    }
    return argparse.Namespace(**(values | changes))


@pytest.fixture
def work(tmp_path: Path) -> Workload:
    return make_workload("word_problems", 12, 9, 4, tmp_path)


def speed(tokens: int, seconds: float, requests: int = 12, prompt_tokens: int = 36) -> Figures:
    return Figures(requests, prompt_tokens, tokens, seconds, tokens / seconds, 0.1, 0.2)


# -- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_over_the_window() -> None:
    found = figures(300, 1000, 4.0, [1.0, 2.0, 3.0, 4.0, 5.0], 0.02)
    assert astuple(found) == (5, 300, 1000, 4.0, 250.0, 3.0, pytest.approx(4.96), pytest.approx(4.0))


def test_a_ratio_is_of_all_tokens_over_all_seconds() -> None:
    rounds = [
        {"suite": speed(100, 1.0), "bench": speed(100, 2.0), "bare": speed(100, 1.0)},
        {"suite": speed(100, 3.0), "bench": speed(50, 1.0), "bare": speed(150, 1.0)},
    ]
    found = summary(rounds)
    assert found["output_tokens_per_second"] == {"suite": 50.0, "bench": 50.0, "bare": 125.0}
    assert (found["suite_to_bench"], found["suite_to_bare"]) == (1.0, 0.4)
    assert found["suite_to_bench_by_round"] == [2.0, pytest.approx(2 / 3)]


def test_ways_that_asked_something_else_are_no_measurement() -> None:
    require_same_prompts({"suite": speed(1, 1.0), "bench": speed(99, 2.0)})
    for other in (speed(1, 1.0, requests=11), speed(1, 1.0, prompt_tokens=48)):
        with pytest.raises(RunFailed, match="not the same"):
            require_same_prompts({"suite": speed(1, 1.0), "bench": other})


# -- vllm bench serve ------------------------------------------------------------------------------------------------


def test_a_result_of_bench_serve_is_read() -> None:
    assert read_bench(BENCH, 12) == Figures(12, 36, 24, 2.0, 12.0, 0.25, 1.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"completed": 11, "failed": 1}, "11 of 12"),
        ({"completed": 13}, "13 of 12"),
        ({"failed": 2}, "2 failed"),
        ({"duration": 0.0}, "cannot be read"),
        ({"total_output_tokens": None}, "cannot be read"),
        ({"p99_e2el_ms": "fast"}, "cannot be read"),
    ],
)
def test_a_result_that_is_none_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(RunFailed, match=says):
        read_bench(BENCH | change, 12)
    with pytest.raises(RunFailed, match="cannot be read"):
        read_bench({}, 12)


def test_bench_serve_is_asked_for_the_same(tmp_path: Path) -> None:
    command = bench_command(asked(), 12, tmp_path / "prompts.jsonl", tmp_path / "result.json")
    given = dict(pairwise(command))
    assert given["--max-concurrency"] == "4" and given["--num-prompts"] == "12" and given["--custom-output-len"] == "9"
    sampling = json.loads(given["--extra-body"])
    assert sampling["temperature"] == 0.0 and sampling["seed"] == 0 and "max_tokens" not in sampling
    assert {"--disable-shuffle", "--skip-chat-template"} <= set(command)
    assert "--ignore-eos" not in command  # nor does the suite


@pytest.mark.e2e
def test_the_installed_bench_serve_knows_the_flags(tmp_path: Path) -> None:
    serve = pytest.importorskip("vllm.benchmarks.serve")
    parser = argparse.ArgumentParser()
    serve.add_cli_args(parser)
    command = bench_command(asked(), 12, tmp_path / "prompts.jsonl", tmp_path / "result.json")
    known = parser.parse_args(command[command.index("serve") + 1 :])
    assert (known.num_prompts, known.max_concurrency, known.custom_output_len) == (12, 4, 9)
    assert known.extra_body["temperature"] == 0.0 and known.disable_shuffle and known.skip_chat_template


# -- asking ----------------------------------------------------------------------------------------------------------


def test_suite_and_bare_client_send_the_same_in_the_same_order(
    server: FakeServer, work: Workload, tmp_path: Path
) -> None:
    together = threading.Barrier(4, timeout=30)  # answers in fours: the order of asking is then that of the groups

    def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
        together.wait()
        return chat_reply()

    server.handler = answer
    suite = asyncio.run(ask_suite(work, server.url, "quantgate", tmp_path / "samples"))
    of_suite, server.posts = [body for _, body in server.posts], []
    bare = asyncio.run(ask_bare(work, server.url, "quantgate"))
    of_bare = [body for _, body in server.posts]
    assert len(of_suite) == len(of_bare) == 12
    canonical = [sorted(json.dumps(body, sort_keys=True) for body in bodies) for bodies in (of_suite, of_bare)]
    assert canonical[0] == canonical[1]
    wanted = questions(work)
    for start in (0, 4, 8):
        for bodies in (of_suite, of_bare):
            four = {body["messages"][0]["content"] for body in bodies[start : start + 4]}
            assert four == set(wanted[start : start + 4])
    for found in (suite, bare):
        assert (found.requests, found.prompt_tokens, found.output_tokens) == (12, 36, 24)
        assert found.output_tokens_per_second == pytest.approx(24 / found.seconds)
        assert 0 < found.p50_seconds <= found.p99_seconds <= found.seconds
    assert len((tmp_path / "samples").read_text().splitlines()) == 12


def test_a_server_that_refuses_is_no_measurement(server: FakeServer, work: Workload, tmp_path: Path) -> None:
    server.script(Reply({"error": {"message": "no"}}, 400))
    with pytest.raises(RunFailed, match="refused"):
        asyncio.run(ask_suite(work, server.url, "quantgate", tmp_path / "samples"))
    with pytest.raises(RunFailed, match="without usage"):
        asyncio.run(ask_bare(work, server.url, "quantgate"))


def test_prompts_that_bench_serve_cannot_send_are_refused(work: Workload, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    path = tmp_path / "turns.jsonl"
    write_items(path, [make_item("word_problems", "00000", turns)])
    with pytest.raises(BadInput, match="word_problems/00000"):
        questions(Workload(work.suite, work.sealed, path, index_items(path)))


def test_the_whole_benchmark_against_a_scripted_server(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.handler = lambda path, body: {"version": "9.9"} if path == "/version" else chat_reply()
    prompts: list[str] = []

    def command(asked: argparse.Namespace, items: int, path: Path, result: Path) -> list[str]:
        prompts[:] = [json.loads(line)["prompt"] for line in path.read_text("utf-8").splitlines()]
        return [sys.executable, "-c", f"open({str(result)!r}, 'w').write({json.dumps(BENCH)!r})"]

    monkeypatch.setattr(client, "bench_command", command)
    out = tmp_path / "out" / "client.json"
    words = ["--url", server.url, "--model", "quantgate", "--tokenizer", "folder", "--out", str(out)]
    words += ["--tasks", "word_problems", "--items", "12", "--concurrency", "4", "--max-tokens", "9", "--rounds", "2"]
    assert main(words) == 0
    found = json.loads(out.read_text("utf-8"))
    assert found["versions"]["server"] == "9.9" and found["concurrency"] == 4 and found["machine"]["processor"]
    task = found["tasks"]["word_problems"]
    assert [list(one) for one in task["rounds"]] == [["bare", "bench", "suite"], ["suite", "bench", "bare"]]
    assert task["output_tokens_per_second"]["bench"] == 12.0
    assert task["suite_to_bench"] == pytest.approx(task["output_tokens_per_second"]["suite"] / 12.0, rel=1e-3)
    assert prompts == questions(make_workload("word_problems", 12, 9, 4, tmp_path))


def test_a_bench_serve_that_fails_ends_the_benchmark(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "bench_command", lambda *_: [sys.executable, "-c", "raise SystemExit('no flags')"])
    words = ["--url", server.url, "--model", "quantgate", "--tokenizer", "folder", "--out", str(tmp_path / "c.json")]
    assert main([*words, "--tasks", "word_problems", "--items", "12", "--max-tokens", "9"]) == 4
    assert "no flags" in capsys.readouterr().err and not (tmp_path / "c.json").exists()


# -- what the client costs -------------------------------------------------------------------------------------------


def test_the_cost_is_measured_against_a_server_in_another_process(tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    words = ["--items", "24", "--concurrency", "8", "--tokens", "40", "--seconds", "0.05", "--rounds", "1"]
    assert client_cost.main(["--out", str(out), *words]) == 0
    found = json.loads(out.read_text("utf-8"))
    for way in ("suite", "suite_with_one_pool", "bare"):
        measured = found["rounds"][0][way]
        assert (measured["requests"], measured["output_tokens"]) == (24, 24 * 40)
        assert measured["p50_seconds"] >= 0.05 and measured["cpu_ms_per_request"] > 0
    cost, rate = found["cpu_ms_per_request"]["suite"], found["requests_per_second_of_a_core"]["suite"]
    assert cost * rate == pytest.approx(1000, rel=1e-3)


# -- what is committed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RESULTS.glob("client_h[12]00*.json")), ids=lambda path: path.name)
def test_the_stored_measurement_holds_the_claim(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert found["concurrency"] == 256 and found["machine"]["gpus"]
    for task in found["tasks"].values():
        assert task["suite_to_bench"] >= 0.9

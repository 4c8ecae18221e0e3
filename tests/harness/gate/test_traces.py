"""Traces: which answers are kept, what is written, and what a recipe that asks for them gets."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fake_server import FAST_RETRY, FakeServer, Reply, chat_reply
from tiny_llama import CALIBRATION, save_tiny_llama

from harness.contract.errors import BadInput, RunFailed
from harness.contract.policy import load_policy
from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Completion, Endpoint
from harness.gate import quantization, traces
from harness.gate.traces import Traces, collect, own_sampling, traces_key, why_dropped, write_traces
from harness.runs.progress import Meter, Reporter
from harness.serving.flags import ServerPlan
from quantizers.calibration_sources import read_documents, trace_prompts
from quantizers.recipe import Source

JA = "朝の市場には、野菜や魚を売る声が聞こえます。"
DEMO = load_policy("demo").policy


def completion(text: str = "A plain answer.", **fields: Any) -> Completion:
    known: dict[str, Any] = {
        "reasoning": "", "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2, "prompt_ids": [1],
        "token_ids": [2], "seconds": 0.1, "fingerprint": None,
    }  # fmt: skip
    return Completion(text=text, **(known | fields))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(), None),
        (completion(reasoning="hm"), None),
        (completion(finish_reason="length"), "cut at the budget"),
        (completion(finish_reason="repetition"), "looped"),
        (completion("again and again, " * 60), "looped"),
        (completion(finish_reason="content_filter"), "not ended by the model"),
        (completion(tool_calls=[{"function": {}}]), "not ended by the model"),
        (completion("", reasoning="hm"), "without an answer after the thinking"),
        (completion("<think>hm"), "without an answer after the thinking"),
        (completion(" \n"), "empty"),
        (completion(JA), "in another language"),
    ],
)
def test_only_answers_that_ended_well_are_kept(answer: Completion, reason: str | None) -> None:
    assert why_dropped(answer, "en", "chat") == reason


def test_code_may_be_in_any_language() -> None:
    assert why_dropped(completion(JA), "ja", "chat") is None
    assert why_dropped(completion(JA), "en", "code") is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, (0.7, 1.0, -1)),
        ("{", (0.7, 1.0, -1)),
        ("[]", (0.7, 1.0, -1)),
        ('{"temperature": 0.6, "top_p": 0.95, "top_k": 20}', (0.6, 0.95, 20)),
        ('{"temperature": 0}', (0.7, 1.0, -1)),
        ('{"temperature": 0.6, "top_p": 7}', (0.7, 1.0, -1)),
        ('{"temperature": "warm", "top_p": null}', (0.7, 1.0, -1)),
    ],
)
def test_sampling_is_what_the_models_makers_say(tmp_path: Path, said: str | None, expected: tuple[float, ...]) -> None:
    if said is not None:
        (tmp_path / "generation_config.json").write_text(said)
    found = own_sampling(tmp_path)
    assert (found.temperature, found.top_p, found.top_k) == expected


class Ids:
    """A tokenizer that shows ids."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def collected(server: FakeServer, count: int) -> Traces:
    endpoint = Endpoint(server.url, "m", Requests(concurrency=1, retries=0), Sampling(temperature=0.7, max_tokens=9))
    return asyncio.run(collect(endpoint, count, Ids(), Meter("traces", count)))


def test_prompts_are_asked_until_enough_is_kept() -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        question = body["messages"][-1]["content"]
        if question == trace_prompts()[0]["prompt"]:
            return chat_reply("cut", finish="length", completion_tokens=9)
        return chat_reply(f"answer to {len(question)} letters: x = {question[:12]}", reasoning="hm")

    with FakeServer() as server:
        server.handler = answer
        made = collected(server, 4)
        assert [body["max_tokens"] for _, body in server.posts] == [9] * len(server.posts)
    assert len(made.rows) == 4 and made.asked == 4 + sum(made.dropped.values()) and made.dropped["cut at the budget"]
    row = made.rows[0]
    assert row["text"] == "1 2 3 7 8" and row["messages"][1]["reasoning_content"] == "hm"
    assert set(row) == {"language", "kind", "prompt", "text", "messages", "tokens"}
    assert made.summary().startswith(f"4 of {made.asked} answers kept; dropped: 1 cut at the budget")


def test_a_model_that_never_ends_is_not_asked_for_ever() -> None:
    with FakeServer() as server:
        server.script(chat_reply("x", finish="length", completion_tokens=9))
        made = collected(server, 3)
    assert (made.rows, made.asked, made.dropped) == ([], 9, {"cut at the budget": 9})


def test_no_more_than_were_wanted_and_none_twice() -> None:
    with FakeServer() as server:
        server.script(*[chat_reply("a", finish="length", completion_tokens=9)] * 2, chat_reply("12"))
        made = collected(server, 3)
    assert (len(made.rows), made.asked, made.dropped["more than were wanted"]) == (3, 6, 1)
    with FakeServer() as server:
        server.script(chat_reply("12"))
        made = collected(server, 60)
    assert (len(made.rows), made.asked, made.dropped) == (54, 180, {"written before": 126})


def test_a_server_that_fails_ends_it() -> None:
    with FakeServer() as server, pytest.raises(RunFailed, match="the server fails while it writes traces"):
        server.script(Reply({"error": {"message": "down"}}, 500, FAST_RETRY))
        collected(server, 3)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model folder whose "server" answers at once; caches go to the test's folder."""

    async def answers(endpoint: Endpoint, count: int, tokenizer: Any, meter: Meter) -> Traces:
        rows = [
            {"language": "en", "kind": "chat", "prompt": str(i), "text": f"{i}: {CALIBRATION[:400]}"}
            for i in range(count if "empty" not in str(tokenizer) else 0)
        ]
        return Traces(rows, count)

    monkeypatch.setattr(traces, "collect", answers)
    monkeypatch.setattr(traces, "plan_servers", lambda *_: [ServerPlan("reference", tmp_path, 1, [])])
    monkeypatch.setattr(traces, "serve", lambda *_: nullcontext([]))
    monkeypatch.setattr(traces, "load_tokenizer", lambda folder, name: name)
    monkeypatch.setattr(traces, "opens_thinking", lambda tokenizer: False)
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    return save_tiny_llama(tmp_path / "tiny")


def test_the_file_says_where_it_comes_from_and_calibrates(served: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces.jsonl"
    made = write_traces(served, "mine", out, 3, DEMO, Reporter(), max_tokens=50_000)
    header = json.loads(out.read_text("utf-8").splitlines()[0])
    assert (header["model"], header["kept"], header["asked"]) == ("mine", 3, 3)
    assert header["sampling"]["max_tokens"] == 4096 - traces.PROMPT_ROOM  # what the served context leaves
    assert [d.content for d in read_documents(out, Source(file=out))] == [row["text"].strip() for row in made.rows]


def test_nothing_kept_is_said_and_nothing_written(served: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"empty: no trace to calibrate on \(0 of 3 answers kept\): give answers more"):
        write_traces(served, "empty", tmp_path / "traces.jsonl", 3, DEMO, Reporter())
    assert not (tmp_path / "traces.jsonl").exists()


def test_a_recipe_has_its_traces_written_once(served: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "traced.yaml"
    recipe.write_text("name: traced\ntune: none\ncalibration: {samples: 4, length: 64, sources: [{traces: 5}]}\n")
    quantization.quantize_model(served, str(recipe), tmp_path / "one", Reporter())
    assert "traces: 5 of 5 answers kept" in capfd.readouterr().err
    assert "5 traces of the model itself, seed" in (tmp_path / "one" / "README.md").read_text()
    (file,) = (tmp_path / "cache" / "traces").iterdir()
    before = file.stat().st_mtime_ns
    quantization.quantize_model(served, str(recipe), tmp_path / "two", Reporter())
    assert "traces written before" in capfd.readouterr().err and file.stat().st_mtime_ns == before
    weights = [(tmp_path / name / "model.safetensors.index.json").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_other_calibration_text_makes_another_checkpoint(served: Path, tmp_path: Path) -> None:
    recipe, text = tmp_path / "mine.yaml", tmp_path / "mine.txt"
    recipe.write_text("name: mine\ntune: none\ncalibration: {samples: 4, length: 64, file: mine.txt}\n")
    text.write_text(CALIBRATION)
    first = quantization.quantized(served, str(recipe), Reporter())
    assert quantization.quantized(served, str(recipe), Reporter()) == first
    text.write_text(CALIBRATION.upper())
    assert quantization.quantized(served, str(recipe), Reporter()) != first
    text.unlink()
    with pytest.raises(BadInput, match=r"cannot read .*mine.txt"):
        quantization.quantized(served, str(recipe), Reporter())


def test_what_names_traces_in_the_cache(tmp_path: Path) -> None:
    key = traces_key(tmp_path, "mark", 4, DEMO)
    assert key == traces_key(tmp_path, "mark", 4, DEMO)
    roomy = DEMO.model_copy(update={"serving": DEMO.serving.model_copy(update={"max_model_len": 2048})})
    others = [traces_key(tmp_path, "other", 4, DEMO), traces_key(tmp_path, "mark", 5, DEMO)]
    assert len({key, *others, traces_key(tmp_path, "mark", 4, roomy)}) == 4

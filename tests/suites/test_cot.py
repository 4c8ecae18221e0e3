"""cot asks what the task asks, scores what lm-eval scores, and keeps the whole answer."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from harness.endpoint import Completion, Endpoint, EndpointError
from harness.errors import BadInput
from harness.policy import Sampling
from harness.samples import Item, Sample
from suites import cot as cot_module
from suites.cot import TASK_FILES, Cot, CotConfig, EndpointLM, load_task, score_text, scored_text
from suites.word_problems import word_problems

DATA = Path(os.environ.get("QUANTGATE_DATA") or "/work/shared/data")
needs_gsm8k = pytest.mark.skipif(
    not (DATA / "gsm8k" / "test.jsonl").exists(), reason="no gsm8k/test.jsonl in QUANTGATE_DATA"
)


def suite(tasks: dict[str, Any], **config: Any) -> Cot:
    return Cot(CotConfig(tasks=tasks, **config), Sampling(max_tokens=512), Path())  # type: ignore[call-arg]


def items(tasks: dict[str, Any]) -> list[Item]:
    return list(suite(tasks).items(None))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def eight() -> list[Item]:
    return items({"word_problems": {"limit": 8}})


def test_items_ask_the_questions_of_the_task_in_order(eight: list[Item]) -> None:
    problems = word_problems(8)
    assert [item.prompt for item in eight] == [[{"role": "user", "content": p["question"]}] for p in problems]
    assert [item.target for item in eight] == [p["answer"].split("#### ")[1] for p in problems]
    assert [item.item for item in eight] == [f"{i:05d}" for i in range(8)]
    assert {item.task for item in eight} == {"word_problems"}
    assert len({item.prompt_sha256 for item in eight}) == 8


def test_items_are_the_same_every_time_and_a_limit_takes_the_first(eight: list[Item]) -> None:
    assert items({"word_problems": {"limit": 8}}) == eight
    assert items({"word_problems": {"limit": 3}}) == eight[:3]
    assert len(items({"word_problems": {}})) == 1000


def test_items_survive_being_stored(eight: list[Item]) -> None:
    assert [Item.model_validate_json(item.model_dump_json()) for item in eight] == eight


@needs_gsm8k
def test_gsm8k_is_read_from_the_folder_and_not_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_DATA", str(DATA))
    made = items({"gsm8k": {"limit": 3}})
    assert "Janet" in made[0].prompt[0]["content"] and made[0].target == "18"
    assert len(made[0].prompt) == 1 and [item.target for item in made[1:]] == ["3", "70000"]
    assert len(items({"gsm8k": {}})) == 1319


@needs_gsm8k
def test_the_worked_solutions_of_gsm8k_are_right_by_our_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_DATA", str(DATA))
    task = load_task("gsm8k")
    for item in items({"gsm8k": {"limit": 200}}):
        solution = item.data["doc"]["answer"]
        assert score_text(task, request_of(item), solution, "exact_match")[0] == 1.0, solution
        assert score_text(task, request_of(item), solution + "1", "exact_match")[0] == 0.0


def test_an_unknown_task_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"cot task no_such_task: .*is the name right, is the data there"):
        load_task("no_such_task")


def test_a_task_that_is_not_answered_by_generation_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "datasets_of.py").write_text((TASK_FILES / "datasets_of.py").read_text("utf-8"), "utf-8")
    (tmp_path / "picked.yaml").write_text(
        "task: picked\noutput_type: multiple_choice\ntest_split: test\n"
        "custom_dataset: !function datasets_of.word_problems\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: ["a", "b"]\ndoc_to_target: 0\n',
        "utf-8",
    )
    monkeypatch.setattr(cot_module, "TASK_FILES", tmp_path)
    with pytest.raises(BadInput, match="picked: not answered by generation"):
        load_task("picked")


# -- scoring -------------------------------------------------------------------------------------------------


def request_of(item: Item) -> Instance:
    arguments = (EndpointLM.apply_chat_template(item.prompt), item.data["generation"])
    return Instance("generate_until", item.data["doc"], arguments, 0, (item.task, int(item.item), 1))


def with_target(item: Item, target: str) -> Instance:
    doc = item.data["doc"] | {"answer": f"Some steps, 3 + 4 = 7.\n#### {target}"}
    return request_of(item.model_copy(update={"data": item.data | {"doc": doc}}))


@pytest.mark.parametrize(
    ("target", "text", "score", "found"),
    [
        ("18", "18", 1.0, "18"),
        ("18", "First 7 + 11 = 18 pears.\nThe answer is 18.", 1.0, "18"),
        ("18", "The answer is **18**", 1.0, "18"),
        ("18", "It is $18.00 in all.", 1.0, "18.00"),
        ("18", "18 pears, of which 7 are green", 0.0, "7"),  # the last number is the answer
        ("18", "19", 0.0, "19"),
        ("18", "118", 0.0, "118"),
        ("18", "-18", 0.0, "-18"),
        ("18", "18.5", 0.0, "18.5"),
        ("18", "I do not know.", 0.0, "[invalid]"),
        ("18", "", 0.0, "[invalid]"),
        ("1234567", "That makes 1,234,567.", 1.0, "1,234,567"),
        ("1,234", "1234", 1.0, "1234"),
        ("-5", "The change is -5 dollars", 1.0, "-5"),
    ],
)
def test_the_last_number_is_the_answer(eight: list[Item], target: str, text: str, score: float, found: str) -> None:
    task = load_task("word_problems")
    assert score_text(task, with_target(eight[0], target), text, "exact_match") == (score, found)


def test_a_metric_that_the_task_has_not_is_bad_input(eight: list[Item]) -> None:
    with pytest.raises(BadInput, match="no metric 'f1'; it has exact_match"):
        score_text(load_task("word_problems"), request_of(eight[0]), "18", "f1")


def test_stop_texts_cut_what_is_scored() -> None:
    completion = Completion("7\n\nQuestion: 8 END 9", "", "stop", 1, 1, [], [], 0.0, None)

    def cut(until: Any) -> str:
        return scored_text(completion, Instance("generate_until", {}, ("[]", {"until": until}), 0, ("t", 0, 1)))

    assert cut([]) == cut(None) == completion.text
    assert cut(["Question:", "END"]) == cut(["END", "Question:"]) == "7\n\n"
    assert cut(["END"]) == "7\n\nQuestion: 8 "


# -- answering -----------------------------------------------------------------------------------------------


def answer(server: FakeServer, made: Cot, item: Item) -> Sample:
    return ask(server.url, lambda e: made.answer(item, "candidate", e))


def test_a_sample_keeps_the_whole_answer(server: FakeServer, eight: list[Item]) -> None:
    reply = chat_reply("11 + 7 = 18", reasoning="so 5 and 6", finish="length", completion_tokens=99)
    server.script(reply)
    sample = answer(server, suite({"word_problems": {}}, max_tokens=99), eight[0])
    assert (sample.score, sample.answer, sample.finish_reason) == (1.0, "18", "length")
    assert (sample.text, sample.reasoning, sample.completion_tokens) == ("11 + 7 = 18", "so 5 and 6", 99)
    assert sample.key == ("cot", "word_problems", "00000", 0, "candidate")
    assert sample.prompt_sha256 == eight[0].prompt_sha256
    path, body = server.posts[0]
    assert path == "/v1/chat/completions" and body["messages"] == eight[0].prompt
    assert body["max_tokens"] == 99
    assert "stop" not in body  # a stop text would also fire inside the thinking


def test_the_budget_is_the_policys_when_the_suite_has_none(server: FakeServer, eight: list[Item]) -> None:
    made = suite({"word_problems": {}})
    answer(server, made, eight[0])
    assert server.posts[0][1]["max_tokens"] == 512
    assert made.context_needed > 512


def test_numbers_in_the_thinking_are_no_answer(server: FakeServer, eight: list[Item]) -> None:
    server.script(chat_reply(None, reasoning="it is 18"))
    sample = answer(server, suite({"word_problems": {}}), eight[0])
    assert sample.score == 0.0 and sample.text == ""


def test_a_failed_request_is_no_sample(server: FakeServer, eight: list[Item]) -> None:
    server.script(chat_reply("18", finish="length", completion_tokens=5))
    with pytest.raises(EndpointError, match="budget"):
        answer(server, suite({"word_problems": {}}), eight[0])


ENDINGS = ["{t}", "The answer is {t}.", "{t}, no: 5{t}", "It is ${t}.00", "none", "", "{t}\n#### 3", "**{t}**"]


def test_our_scores_are_those_of_lm_eval(server: FakeServer) -> None:
    """lm-eval's own loop over the same server is the oracle."""
    sixteen = items({"word_problems": {"limit": 16}})
    replies = {
        item.prompt[0]["content"]: ENDINGS[i % len(ENDINGS)].format(t=item.target) for i, item in enumerate(sixteen)
    }

    def handler(path: str, body: dict[str, Any]) -> Reply:
        return Reply(chat_reply(replies[body["messages"][-1]["content"]], reasoning="12345"))

    server.handler = handler
    made = suite({"word_problems": {"limit": 16}})
    ours = {item.item: answer(server, made, item) for item in sixteen}
    asked = [body for _, body in server.posts]
    server.posts.clear()

    async def run(endpoint: Endpoint) -> Any:
        tasks = TaskManager(include_path=str(TASK_FILES), include_defaults=False).load(["word_problems"])
        options: dict[str, Any] = {"limit": 16, "apply_chat_template": True, "fewshot_as_multiturn": True}
        return await asyncio.to_thread(evaluate, EndpointLM(endpoint), tasks, bootstrap_iters=0, **options)

    results = ask(server.url, run, max_tokens=512)
    theirs = {f"{row['doc_id']:05d}": row for row in results["samples"]["word_problems"]}
    assert sorted((b["messages"][0]["content"], b["max_tokens"]) for _, b in server.posts) == sorted(
        (b["messages"][0]["content"], b["max_tokens"]) for b in asked
    )
    assert {key: sample.score for key, sample in ours.items()} == {key: r["exact_match"] for key, r in theirs.items()}
    assert {key: sample.answer for key, sample in ours.items()} == {
        key: row["filtered_resps"][0] for key, row in theirs.items()
    }
    assert {sample.score for sample in ours.values()} == {0.0, 1.0}  # both kinds were there

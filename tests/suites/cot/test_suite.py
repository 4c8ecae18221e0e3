"""cot asks what the task asks, scores what lm-eval scores, and keeps the whole answer."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from harness.contract.datasets import PUBLIC_DATASETS
from harness.contract.errors import BadInput
from harness.contract.samples import Item, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Completion, Endpoint, EndpointError
from suites.cot.suite import TASK_FILES, Cot, CotConfig, EndpointLM, scored_text
from suites.materials.word_problems import word_problems


def suite(tasks: dict[str, Any], temperature: float = 0.6, **config: Any) -> Cot:
    sampling = Sampling(max_tokens=512, temperature=temperature)
    return Cot(CotConfig(tasks=tasks, **config), sampling, Path())


def items(tasks: dict[str, Any], **config: Any) -> list[Item]:
    return list(suite(tasks, **config).items(None))


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


def test_a_limit_of_the_suite_holds_for_each_task(eight: list[Item]) -> None:
    assert items({"word_problems": {}}, limit=3) == eight[:3]
    assert (
        items({"word_problems": {"limit": 2}}, limit=3) == items({"word_problems": {"limit": 3}}, limit=2) == eight[:2]
    )


def test_repeats_ask_the_same_again_and_change_no_name(eight: list[Item]) -> None:
    twice = items({"word_problems": {"limit": 8}}, repeats=2)
    assert [(item.item, item.repeat) for item in twice] == [(f"{i:05d}", r) for i in range(8) for r in (0, 1)]
    assert twice[::2] == eight
    assert [item.model_copy(update={"repeat": 0}) for item in twice[1::2]] == eight
    own = items({"word_problems": {"limit": 1, "repeats": 3}}, repeats=2)
    assert [item.repeat for item in own] == [0, 1, 2]
    assert len(items({"word_problems": {"limit": 1, "repeats": 1}}, repeats=2)) == 1


def test_repeats_of_greedy_answers_are_refused() -> None:
    with pytest.raises(BadInput, match=r"suites\.cot: repeats of word_problems .*temperature 0; set a temperature"):
        suite({"word_problems": {}}, repeats=2, temperature=0)
    with pytest.raises(BadInput, match="repeats of word_problems"):
        suite({"word_problems": {"repeats": 2}}, temperature=0)
    suite({"word_problems": {"repeats": 1}}, repeats=2, temperature=0)


def test_each_repeat_has_a_seed_of_its_own(server: FakeServer) -> None:
    server.script(chat_reply("18"))
    made = suite({"word_problems": {"limit": 1}}, repeats=3)
    samples = [answer(server, made, item) for item in made.items(None)]
    assert [body["seed"] for _, body in server.posts] == [0, 1, 2]
    assert [sample.key.repeat for sample in samples] == [0, 1, 2]


# -- scoring -------------------------------------------------------------------------------------------------


def completion(text: str, **fields: Any) -> Completion:
    given = {"reasoning": "", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "seconds": 0.0}
    lists: dict[str, Any] = {"prompt_ids": [], "token_ids": [], "fingerprint": None}
    return Completion(text=text, **given | lists | fields)  # type: ignore[arg-type]


def score(item: Item, text: str, **fields: Any) -> Sample:
    return suite({item.task: {}}).score(item, "candidate", completion(text, **fields))


def with_target(item: Item, target: str) -> Item:
    return item.model_copy(update={"data": item.data | {"doc": item.data["doc"] | {"answer": target}}})


@pytest.mark.parametrize(
    ("target", "text", "score_", "found"),
    [
        ("18", "18", 1.0, "18"),
        ("18", "First 7 + 11 = 18 pears.\nThe answer is 18.", 1.0, "18"),
        ("18", "The answer is **18**", 1.0, "18"),
        ("18", "It is $18.00 in all.", 1.0, "18"),
        ("18", "18 pears, of which 7 are green", 1.0, "18"),
        ("7", "18 pears and 7 plums", 1.0, "7"),  # the last number is the answer
        ("18", "19", 0.0, "19"),
        ("18", "118", 0.0, "118"),
        ("18", "-18", 0.0, "-18"),
        ("18", "18.5", 0.0, "18.5"),
        ("18", "I do not know.", 0.0, None),
        ("18", "", 0.0, None),
        ("1234567", "That makes 1,234,567.", 1.0, "1234567"),
        ("1234", "1,234", 1.0, "1234"),
        ("-5", "The change is -5 dollars", 1.0, "-5"),
    ],
)
def test_the_number_at_the_end_is_the_answer(
    eight: list[Item], target: str, text: str, score_: float, found: str | None
) -> None:
    sample = score(with_target(eight[0], target), text)
    assert (sample.score, sample.answer, sample.error) == (score_, found, None)


def test_a_metric_or_filter_that_the_task_has_not_is_known_before_anything_is_asked() -> None:
    with pytest.raises(BadInput, match="word_problems: no metric 'f1'; it has exact_match"):
        items({"word_problems": {"metric": "f1"}})
    with pytest.raises(BadInput, match="word_problems: no filter 'strict'; it has final-number"):
        items({"word_problems": {"filter": "strict"}})
    assert items({"word_problems": {"filter": "final-number", "limit": 1}})


def test_stop_texts_cut_what_is_scored() -> None:
    said = completion("7\n\nQuestion: 8 END 9")

    def cut(until: Any) -> str:
        return scored_text(said, {"until": until})

    assert cut([]) == cut(None) == cut([""]) == scored_text(said, {}) == said.text
    assert cut(["Question:", "END"]) == cut(["END", "Question:"]) == cut("Question:") == "7\n\n"
    assert cut(["END"]) == "7\n\nQuestion: 8 "


def test_scoring_needs_only_the_stored_item_and_the_completion(eight: list[Item]) -> None:
    stored = Item.model_validate_json(eight[0].model_dump_json())
    first, second = score(stored, "The answer is 18"), score(eight[0], "The answer is 18")
    assert first == second and first.score == 1.0


def test_an_item_of_another_policy_is_bad_input(eight: list[Item]) -> None:
    for item in (eight[0].model_copy(update={"task": "gsm8k"}), eight[0].model_copy(update={"data": {}})):
        with pytest.raises(BadInput, match=f"item {item.task}/00000 is not one that this policy's cot would ask"):
            suite({"word_problems": {}}).score(item, "candidate", completion("18"))


def test_a_grader_that_fails_is_an_error_and_no_wrong_answer(eight: list[Item]) -> None:
    broken = eight[0].model_copy(update={"data": eight[0].data | {"doc": {"question": "no answer here"}}})
    sample = score(broken, "18", completion_tokens=5)
    assert sample.score is None and sample.answer is None
    assert sample.error is not None and sample.error.startswith("grader: ")
    assert (sample.text, sample.finish_reason, sample.completion_tokens) == ("18", "stop", 5)


def test_only_the_text_after_the_thinking_is_scored(eight: list[Item]) -> None:
    assert score(eight[0], "The answer is 17", reasoning="The answer is 18").score == 0.0
    sample = score(eight[0], "The answer is 18", reasoning="The answer is 17")
    assert (sample.score, sample.reasoning) == (1.0, "The answer is 17")


def test_what_is_no_answer_has_no_score(eight: list[Item]) -> None:
    unclosed = score(eight[0], "", reasoning="it is 18")
    assert (unclosed.score, unclosed.metrics["unterminated"]) == (None, 1.0)
    null = score(eight[0], "", null=True)
    assert (null.score, null.metrics["null"]) == (None, 1.0)
    called = score(eight[0], "", tool_calls=[{"function": {"name": "sum"}}], finish_reason="tool_calls")
    assert (called.score, called.metrics["tool_calls"]) == (None, 1.0)
    cut = score(eight[0], "", reasoning="it is 18", finish_reason="length")  # it had its budget
    assert (cut.score, cut.metrics["unterminated"]) == (0.0, 1.0)


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
    server.script(chat_reply("None.", reasoning="it is 18"))
    assert answer(server, suite({"word_problems": {}}), eight[0]).score == 0.0


def test_a_failed_request_is_no_sample(server: FakeServer, eight: list[Item]) -> None:
    server.script(chat_reply("18", finish="length", completion_tokens=5))
    with pytest.raises(EndpointError, match="budget"):
        answer(server, suite({"word_problems": {}}), eight[0])


ENDINGS = ["{t}", "The answer is {t}.", "{t}, no: 5{t}", "It is ${t}.00", "none", "...", "{t}\n#### 3", "**{t}**"]


@pytest.mark.slow
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
        key: row["filtered_resps"][0] or None for key, row in theirs.items()
    }
    assert {sample.score for sample in ours.values()} == {0.0, 1.0}  # both kinds were there


def test_a_right_answer_counts_in_the_budgets_that_it_kept(eight: list[Item]) -> None:
    text = f"#### {eight[0].target}"
    asked = suite({"word_problems": {}}, max_tokens=16384)
    done = Completion(text, "", "stop", 10, 5000, [], [], 1.0, None)
    sample = asked.score(eight[0], "candidate", done)
    assert sample.score == 1.0
    assert {k: v for k, v in sample.metrics.items() if "@" in k} == {
        "score@4096": 0.0,
        "score@8192": 1.0,
        "score@16384": 1.0,
    }
    assert not [k for k in suite({"word_problems": {}}).score(eight[0], "candidate", done).metrics if "@" in k]


def test_each_task_that_ships_has_its_data_set_in_the_table() -> None:
    written = {path.stem for path in TASK_FILES.glob("[!_]*.yaml")} - {"word_problems"}  # generated
    assert written == {dataset.task for dataset in PUBLIC_DATASETS if dataset.suite == "cot"}

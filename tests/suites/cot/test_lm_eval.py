"""Tasks that are not ours: lm-eval's files run as they are, but for stop texts and budgets; unfit ones are refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from fake_server import FakeServer, Reply, ask, chat_reply
from lm_eval.evaluator import evaluate

from harness.contract.errors import BadInput
from harness.contract.samples import Item, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Completion, Endpoint
from suites.cot import suite as cot_module
from suites.cot.suite import FEWSHOT_SEED, Cot, CotConfig, EndpointLM, load_task
from suites.materials.word_problems import word_problems

LM_EVAL = Path(lm_eval.__file__).parent / "tasks"
DATA = """
import datasets
from suites.materials.word_problems import word_problems
def rows(**_):
    every = word_problems(30)
    return {"test": datasets.Dataset.from_list(every[:10]), "train": datasets.Dataset.from_list(every[10:])}
def fail(doc, results):
    raise RuntimeError("the grader\\n broke")
def percent(doc, results):
    return {"exact_match": 37.0, "text": "seven"}
"""
OWN = "custom_dataset: !function rows_of.rows\ntest_split: test\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of task files in the place of ours, with rows of this project instead of the hub's."""
    (tmp_path / "rows_of.py").write_text(DATA, "utf-8")
    monkeypatch.setattr(cot_module, "TASK_FILES", tmp_path)
    return tmp_path


def few_shot(folder: Path) -> None:
    """lm-eval's gsm8k (5 examples drawn from the training split, stop texts) over our rows."""
    (folder / "shots.yaml").write_text(
        f"include: {LM_EVAL}/gsm8k/gsm8k.yaml\ntask: shots\nfewshot_split: train\n{OWN}"
        "description: Answer in one line.\nmetadata: {}\n",
        "utf-8",
    )


def cot(name: str, **settings: Any) -> Cot:
    return Cot(CotConfig(tasks={name: settings}), Sampling(max_tokens=512), Path())


def items(name: str, **settings: Any) -> list[Item]:
    return list(cot(name, **settings).items(None))


def answer(server: FakeServer, suite: Cot, item: Item) -> Sample:
    return ask(server.url, lambda endpoint: suite.answer(item, "candidate", endpoint))


def test_few_shot_examples_are_turns_of_their_own_and_always_the_same(folder: Path) -> None:
    few_shot(folder)
    made = items("shots")
    assert len(made) == 10 and items("shots") == made and items("shots", limit=4) == made[:4]
    roles = [message["role"] for message in made[0].prompt]
    assert roles == ["system", *["user", "assistant"] * 5, "user"]
    assert made[0].prompt[0]["content"] == "Answer in one line."
    problems = word_problems(30)
    solutions = [problem["answer"] for problem in problems[10:]]
    assert all(message["content"] in solutions for message in made[0].prompt if message["role"] == "assistant")
    assert made[0].prompt[-1]["content"] == f"Question: {problems[0]['question']}\nAnswer:"
    assert len({json.dumps(item.prompt[1:-1]) for item in made}) == 10  # each question has its own examples


def test_stop_texts_and_budgets_of_a_task_are_never_sent(server: FakeServer, folder: Path) -> None:
    few_shot(folder)
    item = items("shots", limit=1)[0]
    assert "Question:" in item.data["generation"]["until"]
    server.script(chat_reply(f"#### {item.target.split('#### ')[1]}\n\nQuestion: and #### 5"))
    sample = answer(server, cot("shots"), item)
    (_, body) = server.posts[0]
    assert "stop" not in body and "until" not in body and body["max_tokens"] == 512
    assert body["messages"] == item.prompt
    assert sample.score == 1.0 and sample.text.endswith("#### 5")  # cut for scoring, kept whole


def test_any_filter_may_be_chosen(server: FakeServer, folder: Path) -> None:
    few_shot(folder)
    item = items("shots", limit=1)[0]
    server.script(chat_reply(f"It is {item.target.split('#### ')[1]}"))
    assert answer(server, cot("shots"), item).score == 0.0  # lm-eval's first filter wants ####
    assert answer(server, cot("shots", filter="flexible-extract"), item).score == 1.0


def test_prompts_and_scores_are_those_of_lm_eval(server: FakeServer, folder: Path) -> None:
    """lm-eval's own loop over the same server is the oracle, few-shot examples included."""
    few_shot(folder)
    made = items("shots")
    replies = {
        item.prompt[-1]["content"]: f"#### {item.target.split('#### ')[1]}" if index % 3 else "#### 0"
        for index, item in enumerate(made)
    }
    server.handler = lambda path, body: Reply(chat_reply(replies[body["messages"][-1]["content"]]))
    ours = {int(item.item): answer(server, cot("shots"), item).score for item in made}
    asked = [body["messages"] for _, body in server.posts]
    server.posts.clear()

    async def run(endpoint: Endpoint) -> Any:
        task = load_task("shots")
        task.set_fewshot_seed(FEWSHOT_SEED)
        options: dict[str, Any] = {"apply_chat_template": True, "fewshot_as_multiturn": True, "bootstrap_iters": 0}
        return await asyncio.to_thread(evaluate, EndpointLM(endpoint), {"tasks": {"shots": task}}, **options)

    results = ask(server.url, run, max_tokens=512)
    rows = [row for row in results["samples"]["shots"] if row["filter"] == "strict-match"]
    assert ours == {row["doc_id"]: row["exact_match"] for row in rows}
    assert set(ours.values()) == {0.0, 1.0}
    assert sorted(map(json.dumps, asked)) == sorted(json.dumps(body["messages"]) for _, body in server.posts)


# -- tasks that cannot be run --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gsm8kk", "cot task gsm8kk is unknown to lm-eval; did you mean gsm8k?"),
        ("mgsm_direct", "cot task mgsm_direct is a group of tasks: name them one by one"),
        ("hellaswag", "cot task hellaswag: not answered by generation; cot runs generate_until tasks"),
        ("humaneval", "cot task humaneval: scoring it would run code that the model wrote"),
        ("_numeric", "cot task _numeric is unknown to lm-eval"),
    ],
)
def test_a_task_that_cannot_be_run_is_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(BadInput) as error:
        load_task(name)
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("doc_to_target: answer\ngen_prefix: 'So, '\n", "begins the answer itself"),
        ("doc_to_target: answer\ndoc_to_image: [picture]\n", "shows pictures or sounds"),
        ("doc_to_target: '{{missing_field}}'\n", "cannot be loaded"),
        ("doc_to_target: answer\nprocess_results: !function rows_of.fail\n", "cannot be scored: the grader broke"),
        ("doc_to_target: answer\nprocess_results: !function rows_of.percent\n", "exact_match is 37.0, not between"),
    ],
)
def test_a_task_that_does_not_fit_is_known_before_anything_is_asked(folder: Path, lines: str, reason: str) -> None:
    (folder / "odd.yaml").write_text(
        f"task: odd\noutput_type: generate_until\ndoc_to_text: question\ngeneration_kwargs: {{until: []}}\n{OWN}{lines}"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
        "utf-8",
    )
    with pytest.raises(BadInput, match=f"^cot task odd:? .*{reason}") as error:
        items("odd")
    assert "\n" not in str(error.value)


def test_a_grader_that_breaks_on_one_answer_is_an_error_of_that_sample(folder: Path) -> None:
    (folder / "rows_of.py").write_text(
        DATA + "def picky(doc, results):\n    return {'exact_match': 1.0 / len(results[0])}\n", "utf-8"
    )
    (folder / "picky.yaml").write_text(
        f"task: picky\noutput_type: generate_until\ndoc_to_text: question\ndoc_to_target: answer\n{OWN}"
        "generation_kwargs: {until: []}\nprocess_results: !function rows_of.picky\n",
        "utf-8",
    )
    item = items("picky", limit=1)[0]
    sample = cot("picky").score(item, "candidate", Completion("", "", "stop", 3, 0, [], [], 0.0, None))
    assert (sample.score, sample.error) == (None, "grader: float division by zero")
    assert cot("picky").score(item, "candidate", Completion("x", "", "stop", 3, 1, [], [], 0.0, None)).score == 1.0

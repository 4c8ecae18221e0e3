"""For the tests of RULER: suites and tasks made, texts taken apart, and small data sets in the published forms."""

import json
import random
from pathlib import Path
from typing import Any

from harness.contract.samples import Item
from harness.contract.settings import Sampling
from suites.materials.needle_phrases import english
from suites.ruler.suite import TASKS, Ruler, RulerConfig
from suites.ruler.task import Made, Place


def ruler(**config: Any) -> Ruler:
    return Ruler(RulerConfig(**config), Sampling(max_tokens=64), Path())


def made(task: str, length: int = 4096, index: int = 0, seed: int = 42) -> Made:
    return TASKS[task](Place(seed, task, length, index))


def text_of(messages: list[dict[str, Any]]) -> str:
    (message,) = messages
    return str(message["content"])


def body_of(text: str) -> str:
    """What stands between introduction and question."""
    return text.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]


def question_of(text: str) -> str:
    return text.rsplit("\n\n", 1)[1]


def length_of(tokenizer: Any, item: Item) -> int:
    """Tokens of the text that the template makes, counted without the suite's own function."""
    text = tokenizer.apply_chat_template(item.prompt, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def prose(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(english("noun"), k=words)) + "."


def write_data(folder: Path, articles: int = 4, questions: int = 12) -> Path:
    """SQuAD and HotpotQA with made-up paragraphs, in the published forms, as QUANTGATE_DATA has them."""
    rng = random.Random(0)
    data = []
    for a in range(articles):
        paragraphs = []
        for p in range(5):
            asked: list[dict[str, Any]] = [
                {"id": f"q{a}{p}", "question": f"What is it in {a}{p}?", "is_impossible": False},
                {"id": f"n{a}{p}", "question": "Nothing?", "is_impossible": True, "answers": []},
            ]
            asked[0]["answers"] = [{"text": f"Answer{a}{p}"}, {"text": f"the Answer{a}{p}"}, {"text": f"Answer{a}{p}"}]
            paragraphs.append({"context": f"{prose(rng, 60)} It is the Answer{a}{p}. {prose(rng, 40)}", "qas": asked})
        data.append({"title": f"Article {a}", "paragraphs": paragraphs})
    rows: list[dict[str, Any]] = []
    for q in range(questions):
        titles = [f"Title {q}-{i}" for i in range(10)]
        context: list[tuple[str, list[str]]] = [(title, [f"About {title}. ", prose(rng, 50)]) for title in titles]
        context[3][1].append(f" Of value{q}.")
        facts = [[titles[3], 2], [titles[7], 0]]
        rows.append({"_id": f"h{q}", "question": f"Which value {q}?", "answer": f"value{q}"})
        rows[-1] |= {"context": context, "supporting_facts": facts}
    for name, content in (("squad/dev.json", {"version": "v2.0", "data": data}), ("hotpotqa/dev.json", rows)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), "utf-8")
    (folder / "hotpotqa" / "answers_only.json").write_text('[{"question": "?", "answer": "!"}]', "utf-8")
    return folder

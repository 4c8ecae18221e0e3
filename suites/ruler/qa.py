"""RULER's questions on documents: qa_1 of SQuAD, qa_2 of HotpotQA, their documents among those of other questions.

Method: RULER (arXiv 2404.06654), section 3.4. The documents of the answer always stand in the prompt. The filling is
first what lies near (the same article, HotpotQA's own distractors), then the documents of other questions, the last one
cut at a word. Documents keep their order while the filling grows; where all are used up they come again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import accumulate

from harness.contract.chat import Messages
from harness.contract.errors import BadInput
from suites.materials.fitting import user
from suites.materials.haystack import topped_up
from suites.ruler.qa_data import hotpotqa, squad
from suites.ruler.task import Made, Place


def qa(place: Place) -> Made:
    """The question of this place: the same one at every length.

    Raises:
        BadInput: the data set is not there, or has fewer questions than are asked for.
    """
    questions, documents = squad() if place.task == "qa_1" else hotpotqa()
    if place.index >= len(questions):
        raise BadInput(f"ruler task {place.task}: there are only {len(questions)} questions; set a smaller per_task")
    question = questions[_order(place.seed, place.task, len(questions))[place.index]]
    rng = place.rng()
    held = {*question.gold, *question.near}
    filling = rng.sample(question.near, len(question.near))
    filling += [documents[i] for i in rng.sample(range(len(documents)), len(documents)) if documents[i] not in held]
    if not filling:
        raise BadInput(f"ruler task {place.task}: its data is a single document; there must be others to hide it among")
    ends = list(accumulate(len(document.split()) for document in filling))
    gold_keys = [rng.random() for _ in question.gold]
    order = rng.random()

    def chosen(words: int) -> Iterator[str]:
        """Documents of so many words together, the last one cut."""
        for i in range(words // ends[-1] * len(filling)):
            yield filling[i % len(filling)]
        rest, before = words % ends[-1], 0
        for document, end in zip(filling, ends, strict=True):
            if end > rest:
                if rest > before:
                    yield " ".join(document.split()[: rest - before])
                return
            yield document
            before = end

    def build(units: int, extra: int = 0) -> Messages:
        keys = random.Random(order)  # a place for each document, whatever comes after it
        placed = list(zip(gold_keys, question.gold, strict=True))
        placed += [(keys.random(), document) for document in chosen(units)]
        placed.sort(key=lambda pair: pair[0])
        text = "\n\n".join(f"Document {i}:\n{document}" for i, (_, document) in enumerate(placed, start=1))
        intro = "Answer the question by the documents below. Give only the answer."
        return user(f"{intro}\n\n{topped_up(text, extra)}\n\nQuestion: {question.question}")

    return Made(build, question.answers, {"question": question.name})


@cache
def _order(seed: int, task: str, count: int) -> list[int]:
    return random.Random(f"{seed}/{task}").sample(range(count), count)

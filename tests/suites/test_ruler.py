"""RULER prompts have the length that was asked for, hide what they ask for, and are the same everywhere."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.models import DEMO_NAME, cache_folder
from harness.policy import Sampling
from harness.samples import Item, sha256_of
from suites.base import make_item
from suites.ruler import NOISE, SHORT, TASKS, Ruler, RulerConfig, fit, match_all

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def trained() -> Any:
    """A byte-level BPE tokenizer of a few thousand tokens, trained on words like those of the prompts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from wonderwords import RandomWord

    words = sorted(RandomWord().filter(include_categories=["noun"]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbered = [f"{i}. {word}" for i, word in enumerate(words)]
    tokenizer.train_from_iterator([" ".join(NOISE), " ".join(numbered)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE)


@pytest.fixture(scope="module", params=["trained here", "of the demo model"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    if request.param == "trained here":
        return trained()
    folder = cache_folder() / "models" / DEMO_NAME
    if not (folder / "tokenizer.json").exists():
        pytest.skip("the demo model is not in the cache (`make gate` fetches it)")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def length_of(tokenizer: Any, item: Item) -> int:
    """Tokens of the text that the template makes, counted without the suite's own function."""
    text = tokenizer.apply_chat_template(item.prompt, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def make(**config: Any) -> Ruler:
    return Ruler(RulerConfig(**config), Sampling(max_tokens=64), Path())  # type: ignore[call-arg]


def text_of(item: Item) -> str:
    (message,) = item.prompt
    return str(message["content"])


def body_of(text: str) -> str:
    """What stands between introduction and question."""
    return text.split("\n\n")[1]


def test_every_prompt_has_the_length_that_was_asked_for(tokenizer: Any) -> None:
    lengths = (1024, 2048, 4096, 8192)
    items = make(lengths=lengths, tasks=tuple(TASKS), per_task=2).items(tokenizer)
    assert Counter(item.task for item in items) == {f"{task}@{n}": 2 for task in TASKS for n in lengths}
    for item in items:
        asked, found = int(item.task.split("@")[1]), length_of(tokenizer, item)
        assert 0.99 * asked <= found <= asked, item.task


def test_items_follow_from_the_seed_alone(tokenizer: Any) -> None:
    config: dict[str, Any] = {"lengths": (1024, 2048), "tasks": tuple(TASKS), "per_task": 3}
    one, again = make(**config).items(tokenizer), make(**config).items(tokenizer)
    assert list(one) == list(again)
    assert len({item.prompt_sha256 for item in one}) == len(one) == len({(item.task, item.item) for item in one})
    other = make(**config, seed=43).items(tokenizer)
    assert not {item.prompt_sha256 for item in one} & {item.prompt_sha256 for item in other}
    fewer = make(**config | {"per_task": 2, "lengths": (2048,)}).items(tokenizer)
    assert {item.prompt_sha256 for item in fewer} < {item.prompt_sha256 for item in one}


BUILD = """
import json, random
from harness.samples import sha256_of
from suites.ruler import TASKS
for name in TASKS:
    build, references = TASKS[name](random.Random(f"42/{name}/2048/0"), 2048)
    print(json.dumps([sha256_of(build(50)), references]))
"""


def test_items_are_the_same_in_another_process() -> None:
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    ended = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, env=environment, check=True)
    for name, line in zip(TASKS, ended.stdout.splitlines(), strict=True):
        build, references = TASKS[name](random.Random(f"42/{name}/2048/0"), 2048)
        assert json.loads(line) == [sha256_of(build(50)), references]


SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.integers(0, 300))
def test_the_number_is_hidden_once_and_asked_for(seed: int, units: int) -> None:
    build, (value,) = TASKS["niah_single_1"](random.Random(seed), 2048)
    text = build(units)[0]["content"]
    assert text.count(value) == 1 and re.fullmatch(r"\d{7}", value)
    (key,) = re.findall(rf"The locker number of (\S+) is {value}\.", body_of(text))
    assert f"What is the locker number of {key} given in the text?" in text.split("\n\n")[2]
    rest = body_of(text).replace(f"The locker number of {key} is {value}.", "").split(".")
    assert sum(bool(sentence.strip()) for sentence in rest) == units


@given(SEEDS, st.integers(0, 300))
def test_the_chain_of_variables_stands_once_and_in_order(seed: int, units: int) -> None:
    build, names = TASKS["vt"](random.Random(seed), 2048)
    text = build(units)[0]["content"]
    found = re.findall(r"VAR ([A-Z]+) = (?:VAR )?([A-Z]+|\d+)\.", body_of(text))
    value = found[0][1]
    assert [name for name, _ in found] == names and value.isdigit()
    assert [source for _, source in found] == [value, *names[:-1]]
    assert f"hold the value {value}?" in text.split("\n\n")[2]
    assert not any(name in text.split("\n\n")[2] for name in names)  # the answer is not in the question


@pytest.mark.parametrize("length", [SHORT // 2, SHORT])
@given(seed=SEEDS, units=st.integers(0, 300))
def test_the_common_words_are_far_more_common_than_the_others(length: int, seed: int, units: int) -> None:
    build, common = TASKS["cwe"](random.Random(seed), length)
    entries = re.findall(r"(\d+)\. (\w+)", body_of(build(units)[0]["content"]))
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    counts = Counter(word for _, word in entries)
    most = counts.most_common()
    assert {word for word, _ in most[:10]} == set(common) and len(set(common)) == 10
    assert len(most) == 10 + units
    if units:
        assert most[9][1] >= 10 * most[10][1]


def test_the_needle_is_not_always_in_the_same_place() -> None:
    depths = []
    for seed in range(60):
        build, (value,) = TASKS["niah_single_1"](random.Random(seed), 2048)
        text = body_of(build(200)[0]["content"])
        depths.append(text.index(value) / len(text))
    assert min(depths) < 0.1 and max(depths) > 0.9 and 0.35 < sum(depths) / len(depths) < 0.65


# -- fitting -------------------------------------------------------------------------------------------------


class WordCounter:
    """A tokenizer for which a token is a word."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        assert options == {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        return conversation[0]["content"].split()


@given(fixed=st.integers(1, 40), each=st.integers(1, 9), length=st.integers(1, 3000))
def test_fitting_finds_the_longest_prompt(fixed: int, each: int, length: int) -> None:
    def build(units: int) -> list[dict[str, Any]]:
        return [{"role": "user", "content": "w " * (fixed + each * units)}]

    if fixed > length:
        with pytest.raises(BadInput, match="too short for this task"):
            fit(build, length, WordCounter())
    else:
        assert fit(build, length, WordCounter()) == build((length - fixed) // each)


def test_a_length_that_no_task_fits_is_refused() -> None:
    with pytest.raises(BadInput, match="a prompt of 20 tokens is too short"):
        make(lengths=(20,)).items(WordCounter())
    with pytest.raises(BadInput, match="ruler task nosuch is unknown; known: niah_single_1, vt, cwe"):
        make(lengths=(2048,), tasks=("nosuch",)).items(WordCounter())


def test_the_context_holds_prompt_and_answer() -> None:
    assert make(lengths=(1024, 4096)).context_needed == 4096 + 64
    assert make(lengths=(1024,), max_tokens=128).context_needed == 1024 + 128


# -- scoring -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        # string_match_all of NVIDIA/RULER, scripts/eval/synthetic/constants.py: the mean over the references of
        # "reference.lower() in prediction.lower()".
        ("The number is 1234567.", ["1234567"], 1.0),
        ("1,234,567", ["1234567"], 0.0),
        ("", ["1234567"], 0.0),
        ("abcd, EFGH and xyzw", ["ABCD", "EFGH", "IJKL", "MNOP"], 0.5),
        ("ABCD EFGH IJKL MNOP", ["abcd", "efgh", "ijkl", "mnop"], 1.0),
        ("EFGH ABCD", ["ABCD", "EFGH"], 1.0),  # order does not matter
        ("ABCD ABCD ABCD", ["ABCD", "EFGH"], 0.5),  # nor do repetitions
        ("artistic", ["art"], 1.0),  # a substring is enough
        ("ÉCOLE", ["école"], 1.0),
    ],
)
def test_the_score_is_the_share_of_references_found(answer: str, references: list[str], score: float) -> None:
    assert match_all(answer, references) == score


def test_an_answer_is_scored_without_its_thinking(server: FakeServer) -> None:
    item = make_item("vt@2048", "0001", [{"role": "user", "content": "?"}], target=["ABCD", "EFGH"])
    server.script(chat_reply(" They are abcd. ", reasoning="EFGH"))
    sample = ask(server.url, lambda e: make(lengths=(2048,), max_tokens=33).answer(item, "candidate", e))
    assert (sample.score, sample.answer, sample.text) == (0.5, "They are abcd.", " They are abcd. ")
    assert sample.key == ("ruler", "vt@2048", "0001", 0, "candidate")
    assert sample.prompt_sha256 == item.prompt_sha256 and sample.reasoning == "EFGH"
    assert server.posts[0][1]["max_tokens"] == 33 and server.posts[0][1]["messages"] == item.prompt

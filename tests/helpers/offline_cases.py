"""A model folder with a tokenizer small enough for a test, a policy, and answers in a file, scored."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.contract.items import read_items
from harness.contract.policy import SealedPolicy, parse_policy
from harness.contract.samples import Item, Sample, read_samples
from harness.offline.scoring import OfflineScores, score_answers
from harness.runs.progress import Reporter

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system \x1b[31mrole') }}{% endif %}"
POLICY = """\
name: small
sampling: {max_tokens: 24}
serving: {max_model_len: 4096, max_logprobs: 8}
suites:
  cot: {tasks: {word_problems: {limit: 6}}}
  ruler: {lengths: [2048], tasks: [niah_single_1, vt], per_task: 3, max_tokens: 16}
  divergence: {trajectories: 3, max_tokens: 16, top_logprobs: 8}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""
SEALED: SealedPolicy = parse_policy(POLICY)


def save_model(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A checkpoint folder whose tokenizer has one token for each byte and for each end of a message."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<|start|>", "<|end|>")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def tokens_of(messages: list[dict[str, str]]) -> int:
    """Tokens of a conversation for that tokenizer, counted by hand: bytes, and one for each special token."""
    said = sum(1 + len(f"{m['role']}\n{m['content']}".encode()) + 1 + len("\n") for m in messages)
    return said + 1 + len("assistant\n")


def right(item: Item, **more: Any) -> dict[str, Any]:
    """An answer line that is right, for an item of ruler or of word_problems."""
    text = " ".join(item.target) if isinstance(item.target, list) else f"So it is {item.target}.\n#### {item.target}"
    return {"task": item.task, "item": item.item, "repeat": item.repeat, "text": text, "finish_reason": "stop"} | more


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    """A JSONL file; a line that is a text or bytes is written as it is."""
    made = (line if isinstance(line, bytes | str) else json.dumps(line) for line in lines)
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in made))
    return path


def items_of(made: Path, suite: str) -> list[Item]:
    """The items of a suite in the folder of the fixture `made`."""
    return list(read_items(made / f"{suite}.jsonl"))


def score(
    made: Path, suite: str, lines: list[Any], tmp_path: Path, **options: Any
) -> tuple[OfflineScores, list[Sample]]:
    """Score these answer lines: the scores, and the samples that were written."""
    answers = write_lines(tmp_path / "answers.jsonl", lines)
    out = tmp_path / "samples.jsonl"
    options = {"sealed": SEALED, "out": out, **options}
    scores = score_answers(suite, made / f"{suite}.jsonl", answers, Reporter(), **options)
    return scores, list(read_samples(out))

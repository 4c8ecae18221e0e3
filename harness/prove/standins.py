"""Good models that are made where the given one has no experts, or no draft head, for the entries that need some."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from harness.contract.whole_files import read_json
from harness.prove.draft_model import make_model
from harness.prove.drafts import draft_names
from harness.prove.entries import Good, NotApplicable
from harness.prove.experts import pairs_of
from harness.prove.upcycling import Shape, entering_of, specialize, upcycled

EXPERTS, ACTIVE = 8, 2
WIDTH_SHARE = 4
"""An expert has this part of the dense model's neurons: one in so many."""
NOISE = 3.0
"""By which experts differ where their tokens are not, in units of the root mean square of their weights."""
PLACED_BY = (128, 64)
"""Rows of tokens, and their length, that routers are placed by."""
COPIED = ("tokenizer*", "special_tokens_map.json", "chat_template.jinja", "generation_config.json", "vocab*", "merges*")


def has(good: Good, model: Path) -> bool:
    """Whether a model is itself what entries of this kind are made of."""
    look: dict[Good, Callable[[Path], object]] = {"mixture": pairs_of, "drafts": draft_names}
    try:
        return good == "own" or bool(look[good](model))
    except NotApplicable:
        return False


def make_standin(good: Good, model: Path, out: Path) -> None:
    """Write a good model of this kind, made of the given one. Raises NotApplicable: none can be made of it."""
    {"mixture": mixture_of, "drafts": drafting}[good](model, out)


def mixture_of(model: Path, out: Path) -> None:
    """A dense Llama, upcycled: every other layer has eight experts and a shared one (`upcycling.py`)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    kind = read_json(model / "config.json").get("model_type")
    if kind != "llama":
        raise NotApplicable(f"it has no experts, and a mixture can be made of a dense Llama, not of {kind}")
    torch.manual_seed(0)
    disable_progress_bar()  # the gate has lines of its own
    dense: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = _rows(AutoTokenizer.from_pretrained(model), *PLACED_BY)
    layers = tuple(range(2, dense.config.num_hidden_layers, 2))
    shape = Shape(layers, EXPERTS, dense.config.intermediate_size // WIDTH_SHARE, ACTIVE)
    entering = entering_of(dense, rows, layers)
    mixture = upcycled(dense, entering, shape)
    specialize(mixture, entering, NOISE)
    mixture.to(torch.bfloat16).save_pretrained(out)
    for pattern in COPIED:
        for file in model.glob(pattern):
            shutil.copy(file, out)


def _rows(tokenizer: Any, count: int, length: int) -> Any:
    """Tokens [count, length] from an essay and from the prompts of divergence, spread evenly over both."""
    import torch

    data = resources.files("suites") / "data"
    prompts = [json.loads(line)["messages"] for line in (data / "prompts.jsonl").read_text("utf-8").splitlines()]
    texts = [(data / "essay_en.txt").read_text("utf-8"), *(each["content"] for many in prompts for each in many)]
    ids = [token for text in texts for token in tokenizer(text)["input_ids"]]
    if len(ids) < count * length:
        raise NotApplicable(f"its tokenizer makes {len(ids)} tokens of all texts, and routers need {count * length}")
    rows = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
    return rows[:: len(rows) // count][:count]


def drafting(model: Path, out: Path) -> None:
    """A tiny model whose draft head is always right, with the given one's tokenizer (`draft_model.py`)."""
    vocabulary = read_json(model / "config.json").get("vocab_size")
    if not isinstance(vocabulary, int):
        raise NotApplicable("it has no draft head, and config.json has no vocab_size to make one by")
    make_model(out, model, vocabulary, broken_head=False)

"""Defects of the weights: rounding that is too coarse, tensors that are mixed up, tokens that are lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from harness.checkpoint.tokenizer import load_tokenizer
from harness.contract.whole_files import read_json, write_whole
from harness.endpoint.thinking_tags import NOT_ALONE, TAGS
from harness.prove.editing import INDEX, edit_tensors, link_files, read_tensors, save_tensors, tensor_files
from harness.prove.entries import HARMLESS, Doses, Entry, NotApplicable, always, fails, fixed
from harness.prove.rounding import EMBEDDINGS, LAYER, is_linear, ladder, layers_of, rescaled, rounded

COARSER = fixed(7, 6, 5, 4, 3, 2)
"""Bits a weight, from 7 on: 8 are the harmless control's."""


def bits_in_words(bits: float, _: float) -> str:
    return f"{bits:g} bits"


LOST = fixed(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


def lost_in_words(share: float, _: float) -> str:
    return f"{100 * share:g} % of the row"


def is_embedding(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor is the embeddings, or the head where it is stored."""
    return EMBEDDINGS.search(name) is not None


def foreign_scales(source: Path, out: Path, count: float, seed: int = 0) -> None:
    """8-bit linears, of which `count` layers from the middle on have the next layer's scales, the last the first's."""
    layers = layers_of(source)
    hit = {(layers // 2 + seed + step) % layers for step in range(int(count))}

    def owner(name: str) -> str | None:
        found = LAYER.search(name)
        if found is None or int(found[1]) not in hit:
            return None
        return LAYER.sub(f"layers.{(int(found[1]) + 1) % layers}.", name)

    rescaled(source, out, owner)


def add_noise(source: Path, out: Path, noise: float, seed: int = 0) -> None:
    """Normal noise on all linears, in units of the root mean square of each."""
    link_files(source, out)
    chance = torch.Generator().manual_seed(seed)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if not is_linear(name, tensor):
            return None
        whole = tensor.float()
        spread = noise * whole.square().mean().sqrt()
        return (whole + torch.randn(whole.shape, generator=chance) * spread).to(tensor.dtype)

    edit_tensors(out, change)


def swap_layers(source: Path, out: Path, seed: int = 0) -> None:
    """Two neighbouring layers in the middle change places; another seed is a layer further on."""
    link_files(source, out)
    layers = layers_of(out)
    first = (layers // 2 + seed) % (layers - 1)
    pair = {str(first): str(first + 1), str(first + 1): str(first)}
    held = read_tensors(out, lambda name: (found := LAYER.search(name)) is not None and found[1] in pair)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if name not in held:
            return None
        return held[LAYER.sub(lambda found: f"layers.{pair[found[1]]}.", name)]

    edit_tensors(out, change)


def ends_of_answer(model: Path) -> list[int]:
    """The tokens that end an answer: what the tokenizer and generation_config.json say, who need not agree. Raises
    NotApplicable: there is none."""
    file = model / "generation_config.json"
    stated = read_json(file).get("eos_token_id") if file.exists() else None
    found = [getattr(load_tokenizer(model, model.name), "eos_token_id", None)]
    found += stated if isinstance(stated, list) else [stated]
    tokens = sorted({token for token in found if isinstance(token, int)})
    if not tokens:
        raise NotApplicable("its tokenizer has no token that ends an answer")
    return tokens


def end_of_thinking(model: Path) -> list[int]:
    """The token that closes thinking. Raises NotApplicable: it does not think, or closes by several tokens."""
    vocabulary: dict[str, int] = load_tokenizer(model, model.name).get_vocab()  # type: ignore[attr-defined]
    found = next((vocabulary[tag] for _, tag in TAGS if tag in vocabulary and tag not in NOT_ALONE), None)
    if found is None:
        raise NotApplicable("its tokenizer has no token that closes thinking")
    return [found]


def lose_tokens(source: Path, out: Path, share: float, which: Callable[[Path], list[int]]) -> None:
    """Tokens lose this share of their rows in the matrix that the next token is chosen by."""
    link_files(source, out)
    tokens = which(source)
    names = [name for name in tensor_files(out) if EMBEDDINGS.search(name)]
    head = next((name for name in names if "lm_head" in name), names[0] if names else None)
    if head is None:
        raise NotApplicable("the model has no embeddings under a known name")

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if name != head:
            return None
        lost = tensor.clone()
        lost[tokens] *= 1 - share
        return lost

    edit_tensors(out, change)


def save_again(source: Path, out: Path) -> None:
    """The very weights, saved in two files with an index."""
    link_files(source, out)
    tensors = read_tensors(out, lambda name: True)
    for file in [*out.glob("*.safetensors"), out / INDEX]:
        file.unlink(missing_ok=True)
    names = sorted(tensors)
    files = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
    for file_name, part_names in files.items():
        save_tensors(out / file_name, {name: tensors[name] for name in part_names}, {"format": "pt"})
    where = ",\n".join(f'    "{name}": "{file}"' for file, held in files.items() for name in held)
    write_whole(out / INDEX, f'{{\n  "metadata": {{}},\n  "weight_map": {{\n{where}\n  }}\n}}\n')


ENTRIES = (
    Entry(
        "int8",
        "weights",
        "linears at 8 bits, rounded to nearest",
        HARMLESS,
        partial(rounded, bits=8, wanted=is_linear),
        control=True,
    ),
    Entry(
        "saved-again",
        "weights",
        "the candidate at 8 bits, loaded and saved in two files",
        HARMLESS,
        save_again,
        of_control=True,
    ),
    Entry(
        "rtn-2bit",
        "weights",
        "linears at 2 bits, rounded to nearest",
        fails("tv_mean"),
        doses=Doses(partial(rounded, wanted=is_linear), COARSER, always(2), bits_in_words),
    ),
    Entry(
        "noise",
        "weights",
        "noise of half the weights' size on all linears",
        fails("tv_mean"),
        doses=Doses(
            add_noise,
            fixed(0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5),
            always(0.5),
            lambda noise, _: f"noise of {100 * noise:g} % of the weights' root mean square",
        ),
        seeded=True,
    ),
    Entry(
        "foreign-scales",
        "weights",
        "one layer has the scales of the next one",
        fails("tv_mean"),
        doses=Doses(
            foreign_scales,
            lambda good: ladder(layers_of(good)),
            always(1),
            lambda count, most: f"{count:g} of {most:g} layers",
        ),
        seeded=True,
    ),
    Entry(
        "layers-swapped",
        "weights",
        "two neighbouring layers changed places",
        fails("tv_mean"),
        swap_layers,
        seeded=True,
    ),
    Entry(
        "embeddings-4bit",
        "weights",
        "embeddings at 4 bits, a scale a row",
        fails("tv_mean"),
        doses=Doses(partial(rounded, wanted=is_embedding, group=0), COARSER, always(4), bits_in_words),
    ),
    Entry(
        "eos-lost",
        "weights",
        "the rows of the tokens that end an answer are zero",
        fails("truncated_rate"),
        doses=Doses(partial(lose_tokens, which=ends_of_answer), LOST, always(1), lost_in_words),
    ),
    Entry(
        "think-end-lost",
        "weights",
        "the row of the token that closes thinking is zero",
        fails("unterminated_rate"),
        doses=Doses(partial(lose_tokens, which=end_of_thinking), LOST, always(1), lost_in_words),
    ),
    Entry(
        "japanese-lost",
        "weights",
        "no Japanese in the calibration",
        fails("accuracy"),
        needs="a model that answers in Japanese",
    ),
)

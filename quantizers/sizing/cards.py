"""Where a model fits: memory of well-known GPUs against weights and the cache of one long sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GIB = 1024**3
CARDS = {
    "B200 192 GB": 178.3, "H200 141 GB": 139.8, "RTX PRO 6000 96 GB": 94.97, "H100 80 GB": 79.1,
    "A100 80 GB": 79.1, "L40S 48 GB": 44.4, "RTX 5090 32 GB": 31.3, "RTX 4090 24 GB": 23.5,
}  # fmt: skip
"""GiB that CUDA says a card has: what vendors call 96 GB is less than 96 GiB and more than 96e9 bytes."""
COUNTS = (1, 2, 4, 8)
SHARE = 0.10
"""Of weights and cache, for activations and for what is never quite even between cards."""
RESERVED = 2e9
"""Bytes of each card for the CUDA context, graphs and libraries."""
DEFAULT_CONTEXT, LONGEST_CONTEXT = 131_072, 1 << 24
CACHE_BYTES = 2
INDEXER_SCALE_BYTES = 4
"""DSA's indexer keeps its keys in fp8 with a float32 scale (DeepseekV32IndexerCache of vLLM), others are bf16."""
STATES = ("linear", "mamba", "conv", "recurrent", "moe", "mlp")
"""In types of layers without a cache that grows with the context."""


@dataclass(frozen=True)
class CardFit:
    """What one kind of card can hold."""

    card: str
    smallest: int | None
    """Cards needed for the context that was asked for; None: eight do not hold it."""
    with_draft: int | None
    """The same with the draft layers loaded."""
    contexts: dict[int, int]
    """Longest context of one sequence by number of cards; 0: not even the weights."""


def card_fits(config: Any, nbytes: int, draft_bytes: int, draft_layers: int, context: int) -> list[CardFit]:
    """What each of CARDS can hold of `nbytes` of weights, without and with the draft layers.

    Args:
        config: transformers config of the text model.
        context: tokens of one sequence.
    """

    def smallest(memory: float, weights: int, drafts: int) -> int | None:
        fitting = (n for n in COUNTS if _fits(memory, weights, cache_bytes(config, context, n, drafts), n))
        return next(fitting, None)

    found = []
    for card, gib in CARDS.items():
        memory = gib * GIB
        contexts = {count: _longest(config, memory, nbytes, count) for count in COUNTS}
        with_draft = smallest(memory, nbytes + draft_bytes, draft_layers)
        found.append(CardFit(card, smallest(memory, nbytes, 0), with_draft, contexts))
    return found


def default_context(config: Any) -> int:
    """What the model is made for, at most DEFAULT_CONTEXT."""
    return min(longest_context(config), DEFAULT_CONTEXT)


def longest_context(config: Any) -> int:
    """max_position_embeddings, or DEFAULT_CONTEXT where the config has none."""
    longest = getattr(config, "max_position_embeddings", None)
    return min(longest, LONGEST_CONTEXT) if isinstance(longest, int) and longest > 0 else DEFAULT_CONTEXT


def cache_bytes(config: Any, context: int, cards: int = 1, drafts: int = 0) -> int:
    """Bytes of the bf16 cache of one sequence on each of `cards` that share the model by tensor parallelism.

    Of MLA every card has the whole cache, kv_lora_rank + qk_rope_head_dim a token; else keys and values of its share of
    the heads, at least one. Layers with a window hold the window. `drafts` are further layers like the last.
    """
    depth = int(getattr(config, "num_hidden_layers", 0) or 0)
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    window = getattr(config, "sliding_window", None)
    if not isinstance(kinds, (list, tuple)) or len(kinds) != depth:
        sliding = isinstance(window, int) and getattr(config, "use_sliding_window", True)
        kinds = ["sliding_attention" if sliding else "full_attention"] * depth
    total = 0
    for index, kind in enumerate(map(str, [*kinds, *kinds[-1:] * drafts])):
        if any(word in kind for word in STATES):
            continue
        chunk = getattr(config, "attention_chunk_size", None)
        limit = window if "sliding" in kind else chunk if "chunk" in kind else None
        tokens = min(context, limit) if isinstance(limit, int) and limit > 0 else context
        total += tokens * _token_bytes(config, min(index, depth - 1), cards)
    return total


def _token_bytes(config: Any, layer: int, cards: int) -> int:
    rank = getattr(config, "kv_lora_rank", None)
    if isinstance(rank, int) and rank > 0:
        indexed = getattr(config, "index_head_dim", None)
        kinds = getattr(config, "indexer_types", None)
        full = kinds is None or kinds[layer] == "full"
        indexer = indexed + INDEXER_SCALE_BYTES if isinstance(indexed, int) and full else 0
        return CACHE_BYTES * (rank + int(getattr(config, "qk_rope_head_dim", 0) or 0)) + indexer
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    own = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0))
    return CACHE_BYTES * 2 * -(-own // cards) * width


def _fits(memory: float, nbytes: int, cache: int, cards: int) -> bool:
    return (nbytes / cards + cache) * (1 + SHARE) + RESERVED <= memory


def _longest(config: Any, memory: float, nbytes: int, cards: int) -> int:
    """The longest context up to the model's own that fits: bisection, as windows make the cache no straight line."""
    low, high = 0, longest_context(config) + 1
    if not _fits(memory, nbytes, 0, cards):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(memory, nbytes, cache_bytes(config, middle, cards), cards):
            low = middle
        else:
            high = middle
    return low

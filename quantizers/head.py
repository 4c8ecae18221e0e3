"""From the states that leave the last decoder layer to logits: everything of the model that is no decoder layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from quantizers.checkpoint import Checkpoint, one_line
from quantizers.errors import QuantizeError
from quantizers.modeling import RETURNED_BESIDE, Architecture, empty, fill
from quantizers.names import note_of


@contextmanager
def filled_head(
    architecture: Architecture, checkpoint: Checkpoint, *, device: str, dtype: torch.dtype
) -> Iterator[nn.Module]:
    """The model with weights everywhere but in its decoder layers, for as long as the body runs.

    Raises:
        QuantizeError: a tensor is missing, has another shape, or holds NaN or infinity.
    """
    model: Any = architecture.model
    base = model.base_model_prefix
    fill(model, model.base_model, base, checkpoint, device=device, dtype=dtype, skip=architecture.apart)
    output, once = model.get_output_embeddings(), note_of(model.get_input_embeddings()).stored
    for name, child in model.named_children():
        if child is output and note_of(child).stored.get("weight") in (None, once.get("weight")):  # tied: stored once
            child.weight = nn.Parameter(model.get_input_embeddings().weight, requires_grad=False)
        elif name != base:
            fill(model, child, name, checkpoint, device=device, dtype=dtype)
    try:
        yield model
    finally:
        for child in [*model.base_model.children(), *(c for c in model.children() if c is not model.base_model)]:
            empty(child)


def logits_of(architecture: Architecture, tokens: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Logits float32 [B, L, V] where `states` [B, L, D] leave the last layer; `tokens` [B, L] are the text.

    The head must be filled. A gradient flows back to `states`.

    Raises:
        QuantizeError: the model cannot be run this way.
    """
    reason = "its logits have another shape"
    for more in RETURNED_BESIDE:
        try:
            logits = _logits(architecture, tokens, (states, *[None] * more) if more else states)
        except Exception as error:  # anything a model's forward may raise
            reason = one_line(error)
            continue
        if logits.shape[:-1] == states.shape[:-1]:
            return logits.to(torch.float32)
    raise QuantizeError(f"the model's head cannot be run alone: {reason}")


def _logits(architecture: Architecture, tokens: torch.Tensor, returned: object) -> torch.Tensor:
    """Logits where each layer returns this."""
    try:
        for layer in architecture.layers:
            layer.forward = lambda *_args, **_kwargs: returned
        logits: torch.Tensor = architecture.model(input_ids=tokens, use_cache=False).logits
    finally:
        for layer in architecture.layers:
            layer.__dict__.pop("forward", None)
    return logits

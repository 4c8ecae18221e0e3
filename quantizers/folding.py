"""Rotations folded into the weights: another set of weights for the same model, with fewer outliers to quantize.

The hidden states of the model are turned by an orthogonal matrix Q: what reads them is multiplied by Q on its input
side, what writes them on its output side, and the norms, whose weights do not commute with Q, hand theirs to the
Linears that read them and become ones. The values of each attention head are turned by a matrix of their own between
V and O. Nothing is left to do for a server. Method: QuaRot (arXiv 2404.00456, section 4, stage 1), SliceGPT
(arXiv 2401.15024).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from quantgate_kernels.formats.rotation import hadamard
from torch import nn

from quantizers.checkpoint import DTYPES, TensorInfo, read_tensor
from quantizers.errors import QuantizeError
from quantizers.modeling import Architecture
from quantizers.writing import Entry, copy_entry, tensor_entry

SEED = 11
MODELS = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of those whose norms multiply by their weight and whose layers are as below."""
READERS = {
    "self_attn.q_proj": "input_layernorm", "self_attn.k_proj": "input_layernorm", "self_attn.v_proj": "input_layernorm",
    "mlp.gate_proj": "post_attention_layernorm", "mlp.up_proj": "post_attention_layernorm",
}  # fmt: skip
"""Linears of a layer that read the hidden states, and the norm before each."""
WRITERS = ("self_attn.o_proj", "mlp.down_proj")
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
EMBEDDINGS, FINAL_NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
CHUNK_ROWS = 4096
"""Of the embeddings and of the head that are turned at once."""


@dataclass(frozen=True)
class Folding:
    """The matrices of one model; float64."""

    hidden: torch.Tensor
    """[D, D]: hidden states h become h Q."""
    values: torch.Tensor
    """[V, V]: the values of every head, too."""

    def layer(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a decoder layer by their names inside it, turned; those that stay as they are are left out."""
        turn = self.hidden.to(next(iter(tensors.values())))
        found: dict[str, torch.Tensor] = {}
        for name, norm in READERS.items():
            found[f"{name}.weight"] = (tensors[f"{name}.weight"] * tensors[f"{norm}.weight"]) @ turn
            found[f"{norm}.weight"] = torch.ones_like(tensors[f"{norm}.weight"])
        v, o = "self_attn.v_proj", "self_attn.o_proj"
        found[f"{v}.weight"] = self._heads(found[f"{v}.weight"].t()).t().contiguous()
        if f"{v}.bias" in tensors:
            found[f"{v}.bias"] = self._heads(tensors[f"{v}.bias"])
        for name in WRITERS:
            weight = tensors[f"{name}.weight"]
            found[f"{name}.weight"] = turn.t() @ (self._heads(weight) if name == o else weight)
            if f"{name}.bias" in tensors:
                found[f"{name}.bias"] = tensors[f"{name}.bias"] @ turn
        return found

    def turned(self, states: torch.Tensor) -> torch.Tensor:
        """Hidden states, or embeddings, [..., D]."""
        return states @ self.hidden.to(states)

    def head(self, weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """The weight [T, D] of the head, with the weight [D] of the norm before it."""
        return self.turned(weight * norm)

    def entry(self, info: TensorInfo, norm: torch.Tensor) -> Entry:
        """What is written of a tensor outside of the layers, in its own dtype; `norm` is the last norm's weight."""
        dtype = DTYPES[info.dtype][0]
        if info.name == FINAL_NORM:
            return tensor_entry(info.name, torch.ones_like(norm, dtype=dtype))
        if info.name not in (EMBEDDINGS, HEAD):
            return copy_entry(info)

        def chunks() -> Iterator[bytes | memoryview]:
            for stored in torch.split(read_tensor(info), CHUNK_ROWS):
                rows = stored.to(torch.float32)
                found = self.turned(rows) if info.name == EMBEDDINGS else self.head(rows, norm)
                yield from tensor_entry(info.name, found.to(dtype)).chunks

        return Entry(info.name, info.dtype, info.shape, info.nbytes, chunks())

    def _heads(self, values: torch.Tensor) -> torch.Tensor:
        turn = self.values.to(values)
        return (values.reshape(*values.shape[:-1], -1, len(turn)) @ turn).view(values.shape)


def folding_of(architecture: Architecture) -> Folding:
    """The matrices for a model.

    Raises:
        QuantizeError: its architecture is not known to stay the same model.
    """
    model = architecture.model
    kind = getattr(model.config, "model_type", None)
    if kind not in MODELS:
        raise QuantizeError(f"rotate: folded knows models of type {', '.join(MODELS)}, not {kind}: use rotate: none")
    linears = [*READERS, *WRITERS]
    known = {f"{name}.{part}" for name in linears for part in ("weight", "bias")}
    known |= {f"{name}.weight" for name in (*READERS.values(), *HEAD_NORMS)}
    for index, layer in enumerate(architecture.layers):
        names = {name for name, _ in layer.named_parameters()}
        strange = sorted(names - known) + sorted({f"{name}.weight" for name in linears} - names)
        if strange:
            raise QuantizeError(
                f"rotate: folded does not know {architecture.prefix}.{index}.{strange[0]} of this {kind}"
            )
    outside = {name for name, _ in model.named_parameters() if not name.startswith(f"{architecture.prefix}.")}
    strange = sorted(outside - {EMBEDDINGS, FINAL_NORM, HEAD})
    if strange or not {EMBEDDINGS, FINAL_NORM} <= outside:
        raise QuantizeError(f"rotate: folded does not know {(strange or [EMBEDDINGS])[0]} of this {kind}")
    attention: Any = architecture.layers[0].get_submodule("self_attn")
    hidden = model.get_input_embeddings().weight.shape[1]
    return Folding(orthogonal(hidden, SEED), orthogonal(int(attention.head_dim), SEED + 1))


def orthogonal(size: int, seed: int) -> torch.Tensor:
    """A random orthogonal matrix [size, size], float64, that spreads each input over all.

    Signs, then a Hadamard matrix; where `size` is no power of two, the Kronecker product of one with a small matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    power = size & -size
    small = torch.linalg.qr(torch.randn(size // power, size // power, generator=generator, dtype=torch.float64))[0]
    signs = torch.randint(0, 2, (size,), generator=generator).to(torch.float64) * 2 - 1
    whole = torch.mul(hadamard(power).sign().to(torch.float64), power**-0.5)
    return signs[:, None] * torch.kron(small.contiguous(), whole)


def untied(architecture: Architecture, tensors: list[TensorInfo]) -> list[TensorInfo]:
    """The tensors outside of the layers with a head of its own: a folded one is not the embeddings any more.

    Raises:
        QuantizeError: another matrix is there, of a draft head in most cases, which reads states as they were.
    """
    by_name = {info.name: info for info in tensors}
    for info in tensors:
        if len(info.shape) > 1 and info.name not in (EMBEDDINGS, HEAD):
            raise QuantizeError(
                f"rotate: folded turns the states that {info.name} reads, and does not know it: use rotate: none"
            )
    if HEAD in by_name or not architecture.model.config.tie_word_embeddings:
        return tensors
    return [*tensors, replace(by_name[EMBEDDINGS], name=HEAD)]


def fold(layer: nn.Module, folding: Folding) -> None:
    """Fold the rotations into a filled decoder layer, in place."""
    parameters = dict(layer.named_parameters())
    for name, tensor in folding.layer({name: p.data for name, p in parameters.items()}).items():
        parameters[name].data.copy_(tensor)

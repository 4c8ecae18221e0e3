"""What a checkpoint is by its own files: kept in the manifest, compared with what its server says."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ModelFacts(BaseModel):
    """What a checkpoint is, read from its own files."""

    model_config = ConfigDict(extra="forbid")

    name: str
    path: str
    sha256: str = ""
    """Over config.json and every safetensors file, by name; empty when the files are not on this machine."""
    bytes: int = 0
    parameters: int = 0
    bits_per_weight: float = 0.0
    """All bytes of the tensors over all weights."""
    quantization: str | None = None
    """quant_method of config.json, None for an unquantized checkpoint."""
    tensor_bytes: dict[str, int] = Field(default_factory=dict)
    """Bytes of the tensors by safetensors dtype, the largest first."""
    block_parameters: int = 0
    """Weights inside numbered blocks, without the draft head: what quantizing must leave as many as there were."""
    layers: int = 0
    """Decoder layers that are there, without the draft head."""
    bias_parameters: int = 0
    """Biases inside numbered blocks, without the draft head."""
    layout_known: bool = True
    """False: the weights are stored in a layout that is not known here, so nothing is said of bits and of numbers of
    weights (all 0)."""
    linear_parameters: int = 0
    """Weights of the blocks' linear layers that the config means to quantize; all of them where it means none."""
    linear_bits: float = 0.0
    """Bits for each of these, with scales, zero points, codebooks and indices; 0 when there are none."""
    low_bit_share: float = 0.0
    """Share of all weights in the blocks' linear layers that are stored below 16 bits."""
    draft_bytes: dict[str, int] = Field(default_factory=dict)
    """Bytes of the draft head (MTP) by safetensors dtype; empty when there is none."""
    claimed: dict[str, str] = Field(default_factory=dict)
    """What config.json, model card and name say of the quantization, by source; other people's text on one line."""
    doubts: list[str] = Field(default_factory=list)
    """One line for each point in which what is claimed and what is there disagree."""

"""What vLLM asks of a quantized checkpoint: how each of its layers is made.

vLLM makes one of these from config.json where it plans a server, and sends it to the processes that load weights; they
read the checkpoint when their model is made, before any weights.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from quantgate_kernels.settings import METHOD, FormatError, read_json, shown
from quantgate_kernels.vllm_plugin.checkpoints import (
    Checkpoint,
    Rename,
    named,
    read_contents,
    require_split,
)
from quantgate_kernels.vllm_plugin.versions import require_version


class QuantgateConfig(QuantizationConfig):
    """`quant_method: quantgate` (FORMAT.md)."""

    method = METHOD

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.settings = settings
        self.folder: str | None = None
        self.renames: list[Rename] = []
        self._checkpoint: Checkpoint | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.method})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_checkpoint": None}  # each process reads its own

    def get_name(self) -> Any:
        return self.method

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        return 75

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantgateConfig:
        require_version()
        return cls(config)

    def apply_vllm_mapper(self, hf_to_vllm_mapper: Any) -> None:
        self.renames.append(partial(_renamed, hf_to_vllm_mapper))
        self._checkpoint = None

    def maybe_update_config(self, model_name: str, hf_config: Any = None, revision: str | None = None) -> None:
        """Refuse what is not sound as soon as its folder is known."""
        if Path(model_name).is_dir():
            self.folder = model_name
            read_contents(Path(model_name), self.method)

    def checkpoint(self) -> Checkpoint:
        """The checkpoint, read when first asked for and held against the ranks of this server.

        Raises:
            FormatError: it is not sound, or does not split over them.
        """
        if self._checkpoint is None:
            folder = Path(self.folder) if self.folder else _fetched()
            contents = read_contents(folder, self.method)
            config = read_json(folder / "config.json")
            require_split(contents, config, *_ranks())
            self._checkpoint = named(contents, self.renames, config)
        return self._checkpoint

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        """How vLLM makes and runs `layer`; None where it is no Linear and no experts.

        Raises:
            FormatError: the checkpoint is not sound or not fit for this server, or stores nothing of a Linear.
        """
        from vllm.model_executor.layers.fused_moe import RoutedExperts
        from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod

        from quantgate_kernels.vllm_plugin.linear import linear_method
        from quantgate_kernels.vllm_plugin.moe import experts_method

        checkpoint = self.checkpoint()
        if isinstance(layer, RoutedExperts):
            return experts_method(checkpoint, layer, prefix)
        modules = checkpoint.stored(prefix, self.packed_modules_mapping)
        if not isinstance(layer, LinearBase):
            if checkpoint.coded(modules):
                raise FormatError(f"{shown(modules[0])} has codes, and vLLM's {type(layer).__name__} takes none")
            return None
        if checkpoint.coded(modules):
            return linear_method(checkpoint, modules)
        if not modules and checkpoint.must_store(prefix):
            raise FormatError(f"nothing is stored of vLLM's {shown(prefix)}: it names this model's modules otherwise")
        return UnquantizedLinearMethod()


class AQLMConfig(QuantgateConfig):
    """`quant_method: aqlm`, which transformers writes and vLLM no longer reads."""

    method = "aqlm"


def _renamed(mapper: Any, name: str) -> str | None:
    """The server's name of a tensor by one of vLLM's `WeightsMapper`s."""
    found: list[str] = mapper.apply_list([name])
    return found[0] if found else None


def _fetched() -> Path:
    """The folder of a model that vLLM was given by its name at the hub."""
    from huggingface_hub import snapshot_download
    from vllm.config import get_current_vllm_config

    config = get_current_vllm_config()
    model, cache = config.model_config, config.load_config.download_dir
    patterns = ["*.safetensors", "*.json"]
    return Path(snapshot_download(model.model, revision=model.revision, cache_dir=cache, allow_patterns=patterns))


def _ranks() -> tuple[int, int]:
    """Over how many ranks Linears are split, and experts."""
    from vllm.config import get_current_vllm_config

    parallel = get_current_vllm_config().parallel_config
    ranks = parallel.tensor_parallel_size
    if parallel.enable_expert_parallel:
        return ranks, 1
    return ranks, ranks * parallel.data_parallel_size * getattr(parallel, "prefill_context_parallel_size", 1)

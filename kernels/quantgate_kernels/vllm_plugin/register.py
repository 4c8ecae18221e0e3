"""The entry point: vLLM calls it in each of its processes, whatever model is served."""

from __future__ import annotations

import logging


def register() -> None:
    """Make `quant_method` quantgate and aqlm known to vLLM, and int4 to any CPU. Called again, nothing changes; nothing
    is raised."""
    try:
        from vllm.model_executor.layers.quantization import register_quantization_config
        from vllm.platforms import current_platform

        from quantgate_kernels.vllm_plugin.config import AQLMConfig, QuantgateConfig

        register_quantization_config("quantgate")(QuantgateConfig)
        register_quantization_config("aqlm")(AQLMConfig)
        if current_platform.is_cpu():
            from quantgate_kernels.vllm_plugin.int4_on_cpu import register_int4_on_cpu

            register_int4_on_cpu()
    except Exception as error:  # a server of another model must not end on this
        logging.getLogger(__name__).warning("quantgate-kernels serves no codes with this vLLM: %s", error)

"""Stock vLLM serves checkpoints of ours: entry point of `vllm.general_plugins`. Nothing outside imports vLLM.

Two layers: `shards`, `parts` and `checkpoints` are torch alone and hold what is cut from which stored tensor;
`config`, `linear` and `moe` hang that into vLLM.

May import: quantgate_kernels.
"""

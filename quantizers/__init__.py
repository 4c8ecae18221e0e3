"""Makes quantized checkpoints: a model folder and a recipe in, a model folder that vLLM loads out.

May import: quantgate_kernels.formats.
"""

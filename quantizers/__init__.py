"""Makes quantized checkpoints: a model folder and a recipe in, a quantized model folder out.

May import: quantgate_kernels.
"""

"""Kernels for Hopper GPUs and newer, in CUDA C++: compiled by NVRTC when a Linear is loaded, and kept on disk.

May import: quantgate_kernels.formats.
"""

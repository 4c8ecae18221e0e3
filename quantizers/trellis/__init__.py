"""The search for the codes of a bit-shift trellis (quantgate_kernels/formats/trellis.py)."""

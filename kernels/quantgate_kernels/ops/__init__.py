"""What a server calls: a Linear is prepared once at load, and applied without any set-up after that.

May import: quantgate_kernels.cuda, quantgate_kernels.formats.
"""

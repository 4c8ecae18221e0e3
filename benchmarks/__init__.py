"""What it costs, how fast it is, how often it is wrong.

May import: harness, suites, reports, quantizers, quantgate_kernels.
"""

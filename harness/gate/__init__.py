"""The main job, from a model's name to a verdict and a report.

May import: harness.contract, harness.judging, harness.runs, harness.endpoint, harness.serving,
harness.checkpoint, harness.parity, harness.doctor, suites, reports, quantizers, quantgate_kernels.
"""

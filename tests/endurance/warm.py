"""Loads, when it is imported, what a gate loads on its way; the process that gates are forked from imports it."""

from importlib import import_module
from pathlib import Path

NAMES = (
    *("harness.cli", "harness.commands", "harness.gate.mixing", "harness.gate.pipeline", "reports.render"),
    *("suites.decoding", "suites.divergence.suite", "matplotlib.figure", "pyarrow.parquet", "suites.cot.suite"),
    *("transformers.models.auto.tokenization_auto", "transformers.tokenization_utils_tokenizers"),
)
for name in NAMES:
    import_module(name)

suite = import_module("suites.cot.suite")
config = suite.CotConfig.model_validate({"tasks": {"word_problems": {"limit": 2}}})
made = list(suite.Cot(config, import_module("harness.contract.settings").Sampling(), Path()).items(None))

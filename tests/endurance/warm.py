"""Loads, when it is imported, what a gate loads on its way; the process that gates are forked from imports it."""

from pathlib import Path

import transformers.models.auto.tokenization_auto
import transformers.tokenization_utils_tokenizers  # noqa: F401

import suites.decoding
import suites.divergence.suite  # noqa: F401
from harness.contract.settings import Sampling
from suites.cot.suite import Cot, CotConfig

_made = list(Cot(CotConfig.model_validate({"tasks": {"word_problems": {"limit": 2}}}), Sampling(), Path()).items(None))

"""Whatever a policy's file holds: a policy that suites can be made of, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz
from mutations import as_json, damaged, edited
from ruamel.yaml import YAML

from harness.contract.errors import BadInput
from harness.contract.policy import load_policy, parse_policy, shipped_policies
from suites.registry import make_suites

TEXTS = [load_policy(name).text for name in shipped_policies()]
SMALL = """\
name: n
serving: {max_model_len: 4096, extra_args: [--seed, "7"], image_args: [-e, X=y]}
sampling: {temperature: 0.6, max_tokens: 512}
requests: {thinking_tags: [["<a>", "</a>"]]}
suites:
  cot: {tasks: {word_problems: {limit: 8, repeats: 2}}}
  ruler: {lengths: [1024], per_task: 2, tasks: [niah_single_1, vt]}
  needle: {lengths: [512], depths: [0, 1]}
  termination: {levels: [easy], per_task: 1}
  language: {limit: 2}
  divergence: {trajectories: 4, max_tokens: 32, top_logprobs: 20}
  decoding: {prompts: 4, max_tokens: 32}
  speculative: {prompts: 2}
  speed: {concurrency: [2], rounds: 2}
  footprint: {}
noise_floor: {by: server, items: 2}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 1 point, floor: 0.3, stop: sequential}
  - {metric: kl_mean, on: divergence, max_over_noise: 0.05}
  - {metric: bytes_ratio, on: footprint, max: 0.5, advisory: true}
required: [cot/word_problems]
"""
TREES: list[Any] = [YAML(typ="safe", pure=True).load(text) for text in [SMALL] * 4 + TEXTS]


def read(text: str) -> None:
    try:
        sealed = parse_policy(text)
        make_suites(sealed.policy, Path("run"))
    except BadInput as error:
        assert "\n" not in str(error) or len(str(error)) < 2000


@pytest.mark.parametrize("metric", [r"\udf60", r"a\ud800b"])
def test_half_of_a_surrogate_pair_is_refused(metric: str) -> None:
    """Found by fuzzing: a message that quotes it made pydantic raise UnicodeEncodeError."""
    check = f'{{"metric": "{metric}", "on": "needle", "max_loss": 0.5}}'
    with pytest.raises(BadInput, match="no Unicode text"):
        parse_policy(f'{{"name": "n", "suites": {{"needle": {{}}}}, "checks": [{check}]}}')


@fuzz(8.2, tree=edited(TREES))
def test_values_of_a_policy(tree: Any) -> None:
    read(as_json(tree))


@fuzz(0.5, data=damaged([SMALL.encode()] * 3 + [text.encode() for text in TEXTS]))
def test_text_of_a_policy(data: bytes) -> None:
    read(data.decode("utf-8", "replace"))

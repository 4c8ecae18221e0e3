"""The policy with another seed: of the sampling, and of suites that make their questions by one."""

from __future__ import annotations

import io
from pathlib import Path

from ruamel.yaml import YAML

from harness.contract.policy import load_policy
from harness.contract.whole_files import write_whole
from suites.registry import SUITES


def policy_of_seed(policy: str, seed: int, out: Path) -> str:
    """The path of the policy under OUT, with `seed` added to every seed in it. Raises BadInput: it cannot be read."""
    sealed = load_policy(policy)
    yaml = YAML()
    data = yaml.load(sealed.text)
    data.setdefault("sampling", {})["seed"] = sealed.policy.sampling.seed + seed
    for name, settings in data["suites"].items():
        if name in SUITES and "seed" in SUITES[name][1].model_fields:
            settings["seed"] = settings.get("seed", 0) + seed
    text = io.StringIO()
    yaml.dump(data, text)
    write_whole(out / "policy.yaml", text.getvalue())
    return str(out / "policy.yaml")

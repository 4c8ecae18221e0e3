"""Which suites there are: a policy's name for each, with its configuration."""

from __future__ import annotations

from pathlib import Path

from harness.contract.errors import BadInput
from harness.contract.policy import Policy
from harness.contract.validation import validate
from suites.base import Suite, SuiteConfig
from suites.cot.suite import Cot, CotConfig
from suites.decoding import Decoding, DecodingConfig
from suites.divergence.suite import Divergence, DivergenceConfig
from suites.footprint import Footprint, FootprintConfig
from suites.language.suite import LanguageConfig, LanguageSuite
from suites.needle import Needle, NeedleConfig
from suites.ruler.suite import Ruler, RulerConfig
from suites.speculative import Speculative, SpeculativeConfig
from suites.speed import Speed, SpeedConfig
from suites.swebench.suite import Swebench, SwebenchConfig
from suites.termination import Termination, TerminationConfig

SUITES: dict[str, tuple[type[Suite], type[SuiteConfig]]] = {
    "divergence": (Divergence, DivergenceConfig),
    "decoding": (Decoding, DecodingConfig),
    "cot": (Cot, CotConfig),
    "ruler": (Ruler, RulerConfig),
    "needle": (Needle, NeedleConfig),
    "termination": (Termination, TerminationConfig),
    "language": (LanguageSuite, LanguageConfig),
    "swebench": (Swebench, SwebenchConfig),
    "speculative": (Speculative, SpeculativeConfig),
    "footprint": (Footprint, FootprintConfig),
    "speed": (Speed, SpeedConfig),
}


def make_suites(policy: Policy, run: Path) -> list[Suite]:
    """The suites of a policy, in the policy's order; large data of a suite goes to RUN/<suite>.

    Raises:
        BadInput: unknown suite, a bad configuration, or a context that the servers' max_model_len cannot hold.
    """
    return [make_suite(policy, name, run / name) for name in policy.suites]


def make_suite(policy: Policy, name: str, folder: Path) -> Suite:
    """One suite of a policy; its large data goes to `folder`.

    Raises:
        BadInput: as `make_suites`, or the policy does not name this suite.
    """
    if name not in policy.suites:
        raise BadInput(f"policy {policy.name} names no suite '{name}'; it names {', '.join(policy.suites)}")
    if name not in SUITES:
        raise BadInput(f"policy {policy.name}: suite '{name}' is unknown; known: {', '.join(SUITES)}")
    suite_class, config_class = SUITES[name]
    config = validate(config_class, policy.suites[name] or {}, f"policy {policy.name}: suites.{name}")
    if lacking := config.lacking(policy.serving):
        raise BadInput(f"policy {policy.name}: suite {name} {lacking}")
    suite = suite_class(config, policy.sampling, folder)
    if suite.context_needed > policy.serving.max_model_len:
        raise BadInput(
            f"policy {policy.name}: suite {name} needs {suite.context_needed} tokens of context, "
            f"serving.max_model_len is {policy.serving.max_model_len}"
        )
    return suite

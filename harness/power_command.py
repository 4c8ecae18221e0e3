"""`quantgate power`: what a policy can decide, before anything is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.contract.policy import load_policy
from harness.terminal import console


def power(
    policy: Annotated[str, typer.Argument(help="A shipped policy's name or a YAML file.")],
    earlier: Annotated[
        Path | None, typer.Option("--from", help="A judged run: its D, items, times and tokens are used.")
    ] = None,
    discordance: Annotated[
        float | None, typer.Option(min=0, max=1, help="D, the share of discordant items, instead of the run's.")
    ] = None,
    gpu_hours: Annotated[float | None, typer.Option(min=0, help="Use this time: all items grow alike.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Say what POLICY can decide: chances of PASS for an equal candidate and of FAIL at twice the margin."""
    from harness.offline.power import policy_power, power_table, power_words, read_earlier, to_json

    known = read_earlier(earlier) if earlier else None
    found = policy_power(load_policy(policy).policy, known, discordance, gpu_hours)
    if as_json:
        print(to_json(found))
        return
    console().print(power_table(found))
    for line in power_words(found):
        print(line)

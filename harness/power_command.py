"""`quantgate power`: what a policy can decide, before anything is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.contract.policy import load_policy
from harness.terminal import console


def power_command(
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
    from harness.offline.item_counts import count_items, without_limits
    from harness.offline.power import policy_power
    from harness.offline.power_statements import limited, read_earlier, to_count
    from harness.offline.power_words import power_table, power_words, to_json

    asked, known = load_policy(policy).policy, read_earlier(earlier) if earlier else None
    counted, remarks = count_items(asked, to_count(asked, known))
    sizes: dict[str, int] = {}
    for suite in limited(asked) if gpu_hours is not None else ():
        found, said = count_items(without_limits(asked, suite), [suite])
        sizes |= found
        remarks += said
    power = policy_power(asked, known, discordance, gpu_hours, counted, sizes)
    power = replace(power, remarks=tuple(remarks))
    if as_json:
        print(to_json(power))
        return
    console().print(power_table(power))
    for line in power_words(power):
        print(line)

"""The second step of a mix: which tier each group gets, for a number of bits or bytes, and the recipe that says so."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from quantizers.errors import QuantizeError
from quantizers.mixed.damage import Damage, GroupDamage, average
from quantizers.mixed.groups import family_of
from quantizers.mixed.knapsack import choose
from quantizers.recipe import DEFAULT_IGNORE, KEPT

UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGT", start=1)}


@dataclass(frozen=True)
class Target:
    """How large the result may be: exactly one of the two."""

    bits: float | None = None
    """Mean of the weights whose tier is open, codes and scales."""
    nbytes: int | None = None
    """Of all tensors of the checkpoint, those that are kept too."""

    def __str__(self) -> str:
        return f"{self.bits:g} bits" if self.bits is not None else f"{self.nbytes:,} bytes"

    def budget(self, damage: Damage) -> int:
        """Bytes that the groups may have together.

        Raises:
            QuantizeError: less than the lowest tier needs everywhere, or more than the highest can use.
        """
        if self.bits is not None:
            chosen = {group.name for group in damage.open_groups}
            weights = sum(group.weights for group in damage.open_groups)
            settled = sum(min(group.bytes.values()) for group in damage.groups if group.name not in chosen)
            budget = int(self.bits * weights / 8 * (1 + 1e-12)) + settled
        else:
            assert self.nbytes is not None
            budget = self.nbytes - damage.other_bytes
        for fits, end, name in ((_least, "below", "lowest"), (_most, "above", "highest")):
            mix = {group.name: fits(group) for group in damage.groups}
            size = sum(group.bytes[mix[group.name]] for group in damage.groups)
            if (budget < size) if end == "below" else (budget > size + size // 10_000):
                tiers = "/".join(dict.fromkeys(mix.values()))
                raise QuantizeError(
                    f"{self} is {end} what the {name} tiers ({tiers}) make of this model: {damage.bits(mix):.4g} bits, "
                    f"{damage.nbytes(mix):,} bytes"
                )
        return budget


def make_target(bits: float | None, size: str | None) -> Target:
    """A target from what a person says: 1.71 bits, or bytes as in "167GiB".

    Raises:
        QuantizeError: both or neither, or no such size.
    """
    if (bits is None) == (size is None):
        raise QuantizeError("give the size of a mix either in bits a weight or in bytes of the checkpoint")
    if size is None:
        if not (bits and 0 < bits <= 64):
            raise QuantizeError(f"{bits:g} bits a weight: give a number such as 1.71")
        return Target(bits=bits)
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]i?)?B?", size.strip(), re.ASCII)
    if match is None:
        raise QuantizeError(f"{size[:40]!r} is no size: write 167GiB, 800MB or a number of bytes")
    return Target(nbytes=int(float(match.group(1)) * UNITS[match.group(2) or ""]))


def choose_tiers(damage: Damage, target: Target, weights: Mapping[str, float]) -> dict[str, str]:
    """The tier of each group, by name, that makes the sum of damages small.

    Args:
        weights: what each kind of text counts; 1 where nothing is said.

    Raises:
        QuantizeError: a target that no choice meets or that every choice does, or one that leaves all as it was; a
            weight for an unknown kind.
    """
    counted = damage.weighted(weights)
    values = [group.cost(counted) for group in damage.groups]
    tiers = choose(values, [group.bytes for group in damage.groups], target.budget(damage))
    if set(tiers) == {KEPT}:
        raise QuantizeError(f"{target} leave every group at 16 bits, and nothing to quantize: ask for less")
    return {group.name: tier for group, tier in zip(damage.groups, tiers, strict=True)}


def expected(damage: Damage, mix: Mapping[str, str], weights: Mapping[str, float]) -> float:
    """The sum of the damages that each group does alone: a yardstick, as damages do not add up."""
    counted = damage.weighted(weights)
    return sum(average(group.damage[mix[group.name]], counted) for group in damage.groups)


def recipe_text(damage: Damage, mix: Mapping[str, str], weights: Mapping[str, float], notes: list[str]) -> str:
    """A recipe in YAML for a mix, one line a group, under comments: how it was chosen, `notes`, and how to edit it."""
    counted = damage.weighted(weights)
    base = {key: value for key, value in damage.recipe.items() if key not in ("name", "mix", "tier", "tiers", "ignore")}
    kept = [linear for group in damage.groups if mix[group.name] == KEPT for linear in group.linears]
    used: Counter[str] = Counter()
    for group in damage.groups:
        used[mix[group.name]] += group.weights
    del used[KEPT]
    head: dict[str, Any] = {"name": f"{damage.recipe.get('name', 'mixed')}-{damage.bits(mix):.4g}"}
    head |= {"tier": used.most_common(1)[0][0]} if used else {}
    head |= base
    head["ignore"] = [*damage.recipe.get("ignore", DEFAULT_IGNORE), *kept]
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.dump(head, stream)
    counts = ", ".join(f"{kind} {weight:g}" for kind, weight in counted.items())
    comments = [
        f"{summary(damage, mix)}.",
        f"Sum of what each group does alone: {expected(damage, mix, weights):.4g} nats, where texts count {counts}.",
        *notes,
        "Edit at will: the first line of `tiers` that fits a Linear decides; `ignore` is kept as it was.",
    ]
    together: dict[tuple[str, str], list[GroupDamage]] = {}
    for group in damage.groups:
        if mix[group.name] != KEPT:
            together.setdefault((family_of(group.name), mix[group.name]), []).append(group)
    rows = [
        f"  '{_pattern(groups)}': {tier}  # {sum(group.cost(counted)[tier] for group in groups):.3g} nats alone"
        for (_, tier), groups in together.items()
    ]
    return "\n".join([*(f"# {line}" for line in comments), stream.getvalue() + "tiers:", *rows]) + "\n"


def summary(damage: Damage, mix: Mapping[str, str]) -> str:
    """How large a mix is, and how much of the weights has which tier."""
    total = sum(group.weights for group in damage.groups)
    tiers: Counter[str] = Counter()
    for group in damage.groups:
        tiers[mix[group.name]] += group.weights
    shares = ", ".join(f"{tier} {100 * count / total:.0f} %" for tier, count in sorted(tiers.items()))
    return f"{damage.bits(mix):.4f} bits a weight, {damage.nbytes(mix):,} bytes of tensors: {shares}"


def _pattern(groups: Sequence[GroupDamage]) -> str:
    """What fits the Linears of one group, or those of several experts."""
    linears = groups[0].linears
    if len(groups) == len(linears) == 1:
        return linears[0]
    parent = linears[0].rpartition(".")[0]
    lasts = "|".join(re.escape(linear.rpartition(".")[2]) for linear in linears)
    if len(groups) == 1:
        return rf"re:{re.escape(parent)}\.({lasts})$"
    experts = parent.rpartition(".")[0]
    numbers = "|".join(group.linears[0].rpartition(".")[0].rpartition(".")[2] for group in groups)
    return rf"re:{re.escape(experts)}\.({numbers})\.({lasts})$"


def _least(group: GroupDamage) -> str:
    return min(group.bytes, key=lambda tier: group.bytes[tier])


def _most(group: GroupDamage) -> str:
    return max(group.bytes, key=lambda tier: group.bytes[tier])

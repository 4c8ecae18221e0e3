"""Where what a checkpoint claims and what its files hold disagree, one plain line for each point.

A doubt decides nothing. It is written so that a person can check it: both figures, what was counted, who said it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.checkpoint.claims import CONFIG, NAME, RELATION, TAGS, TEXT, TITLE, Claim
from harness.contract.model_facts import ModelFacts

# A claim of B bits a weight is believed up to 1.10 (B + overhead) + 0.3 and down to 0.90 B - 0.3, where overhead is
# what the config's own group size costs in scales and zero points. 0.3 covers scales that nobody mentions (16 bits for
# each 64 weights are 0.25) and small codebooks; the tenth covers words that do not divide (ten 3-bit weights in 32 bits
# cost 3.2) and a few layers at more bits. So 4 bits in groups of 32 with zero points (4.63) pass without knowing the
# group, and 1.71 is doubted above 2.18.
SLACK, TOLERANCE = 0.3, 0.10
# Quantizing leaves every weight of the blocks in its place. A thousandth is for biases and shifts that a format adds;
# one of 100 layers is ten times that.
SAME_COUNT = 0.001
# Below this share of the linear weights, "a 4-bit model" is not what most people would call it.
MOST = 0.5
FULL = frozenset({"BF16", "F16", "F32", "F64"})


def doubts(facts: ModelFacts, claims: Sequence[Claim]) -> list[str]:
    """Doubts about one checkpoint; `claims` are its own. Order: the gravest first."""
    said = [claim for claim in claims if claim.kind in ("bits", "quantized") and claim.source != TEXT]
    found = []
    if facts.linear_bits and said and not facts.low_bit_share:
        found.append(
            f"{_say(said)}, but no linear layer is stored below 16 bits: they hold {facts.linear_bits:.2f} bits per "
            f"weight ({_dtypes(facts.tensor_bytes)}), so nothing was quantized"
        )
    elif facts.low_bit_share:
        if facts.quantization is None:
            found.append(
                f"{100 * facts.low_bit_share:.0f} % of the linear weights are stored below 16 bits, but config.json "
                "has no quantization_config: servers will not read them as quantized"
            )
        found += _bit_doubts(facts, claims)
        if said and facts.low_bit_share < MOST:
            found.append(
                f"{_say(said)}, but only {100 * facts.low_bit_share:.0f} % of the weights in the blocks' linear layers "
                f"are stored below 16 bits"
            )
    return found + _draft_doubts(facts, claims)


def quantized_words(claims: Sequence[Claim]) -> str:
    """What card and name say of being quantized, in one clause; empty when they do not."""
    said = [c for c in claims if c.kind in ("bits", "quantized") and c.source in (RELATION, TAGS, TITLE, NAME)]
    return _say(said)


def pair_doubts(reference: ModelFacts, candidate: ModelFacts) -> list[str]:
    """Doubts about a pair: what quantizing must not change, and did. Empty when one of them was not described."""
    if not reference.parameters or not candidate.parameters:
        return []
    found = []
    if reference.layers != candidate.layers:
        found.append(f"the candidate has {candidate.layers} decoder layers, the reference {reference.layers}")
    known = reference.layout_known and candidate.layout_known
    before, after = reference.block_parameters, candidate.block_parameters
    if known and abs(after - before) > SAME_COUNT * before:
        more = "more" if after > before else "fewer"
        share = f" ({100 * abs(after - before) / before:.2g} % {more})" if before else ""
        found.append(f"the candidate's blocks hold {after:,} weights, the reference's {before:,}{share}")
    # Biases are so few that they hide below a thousandth of the weights. A format may add some, none may drop them.
    if candidate.bias_parameters < reference.bias_parameters:
        found.append(
            f"the candidate's blocks hold {candidate.bias_parameters:,} biases, the reference's "
            f"{reference.bias_parameters:,}: some are lost"
        )
    if reference.draft_bytes and not candidate.draft_bytes:
        found.append("the reference has a draft head (MTP), the candidate has none: speculative decoding is lost")
    if known and candidate.bits_per_weight >= reference.bits_per_weight:
        found.append(
            f"the candidate holds {candidate.bits_per_weight:.2f} bits per weight and the reference "
            f"{reference.bits_per_weight:.2f}: it is not smaller"
        )
    return found


def _bit_doubts(facts: ModelFacts, claims: Iterable[Claim]) -> list[str]:
    """One line for all sources whose bits do not fit. One that names several values is given the best of them."""
    by_source: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.kind == "bits":
            by_source.setdefault(claim.source, []).append(claim)
    config = by_source.pop(CONFIG, [])
    cost = max((claim.overhead for claim in config), default=0.0)
    wrong = [] if _between(facts, config, cost) else config
    believed = bool(config) and not wrong
    for source, group in sorted(by_source.items(), key=lambda item: item[0] == TEXT):
        if any(_fits(facts, claim, cost) for claim in group):
            believed = believed or source != TEXT
        elif source != TEXT or not believed or any(_is_average(claim) for claim in group):
            # A text speaks of other models too. Where the bits are known from elsewhere, "8-bit" in it is one of those.
            wrong = wrong + group
    if not wrong:
        return []
    return [
        f"{_say(wrong)}, but the files hold {facts.linear_bits:.2f} bits per weight in the linear layers to be "
        f"quantized (with scales, zero points, codebooks) and {facts.bits_per_weight:.2f} over the whole model"
    ]


def _between(facts: ModelFacts, config: Sequence[Claim], cost: float) -> bool:
    """Do a config's groups fit? Those of several widths average to something between them."""
    widths = [claim.bits or 0.0 for claim in config]
    return not widths or _floor(min(widths)) <= facts.linear_bits <= _ceiling(max(widths), cost)


def _fits(facts: ModelFacts, claim: Claim, cost: float) -> bool:
    """Does a claim fit the linear layers or the whole model? `cost` is what the config's groups cost in scales."""
    bits = claim.bits or 0.0
    ceiling = _ceiling(bits, 0.0 if _is_average(claim) else cost)
    return any(_floor(bits) <= figure <= ceiling for figure in (facts.linear_bits, facts.bits_per_weight))


def _is_average(claim: Claim) -> bool:
    """1.71 bits are an average that has its scales in it; 4 bits are the width of the integers without them."""
    return not float(claim.bits or 0).is_integer()


def _ceiling(bits: float, overhead: float) -> float:
    return (1 + TOLERANCE) * (bits + overhead) + SLACK


def _floor(bits: float) -> float:
    return (1 - TOLERANCE) * bits - SLACK


def _draft_doubts(facts: ModelFacts, claims: Iterable[Claim]) -> list[str]:
    draft = [claim for claim in claims if claim.kind == "draft"]
    kept = [claim for claim in draft if claim.bits]
    if draft and not facts.draft_bytes:
        return [f"{_say(draft)}, but no draft head (layers after the last, `mtp.`) is in the files"]
    if kept and not FULL.issuperset(facts.draft_bytes):
        return [f"{_say(kept)}, but the draft head is stored in {_dtypes(facts.draft_bytes)}"]
    return []


def _say(claims: Sequence[Claim]) -> str:
    """The claims in one clause: every source once, with its first words; the most binding source first."""
    order = (CONFIG, RELATION, TAGS, TITLE, NAME, TEXT)
    first: dict[str, str] = {}
    for claim in sorted(claims, key=lambda claim: order.index(claim.source) if claim.source in order else len(order)):
        first.setdefault(claim.source, claim.text)
    return " and ".join(f'{source} says "{text}"' for source, text in first.items())


def _dtypes(sizes: dict[str, int]) -> str:
    """The dtypes that hold at least a hundredth of the bytes, the largest first."""
    everything = sum(sizes.values())
    return ", ".join(dtype for dtype, size in sizes.items() if size >= everything / 100) or "nothing"

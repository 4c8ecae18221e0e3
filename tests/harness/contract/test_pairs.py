"""Pairs: nothing is dropped without being counted, and the order of asking is sealed."""

import hashlib
from collections import Counter
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract.errors import BadInput
from harness.contract.pairs import pair_samples, sealed_order
from harness.contract.samples import PairKey, Sample


def make(item: str = "0001", role: str = "candidate", **fields: Any) -> Sample:
    given_fields = {"suite": "cot", "task": "gsm8k", "item": item, "role": role, "prompt_sha256": "aa"} | fields
    return Sample(**given_fields)


def both(item: str, **candidate: Any) -> list[Sample]:
    return [make(item, role="reference"), make(item, **candidate)]


def test_pairing_counts_whatever_it_leaves_out() -> None:
    samples = [
        *both("good"),
        *both("good-zero", score=0.0),
        make("only-reference", role="reference"),
        make("only-candidate"),
        *both("errored", error="timeout: no answer"),
        *both("unequal", prompt_sha256="bb"),
        *both("errored-and-unequal", error="server: 500", prompt_sha256="bb"),
        make("other-repeat", role="reference", repeat=0),
        make("other-repeat", repeat=1),
    ]
    pairing = pair_samples(samples)
    assert [pair.reference.item for pair in pairing.pairs.values()] == ["good", "good-zero"]
    assert pairing.unusable == {
        ("cot", "gsm8k", "only-reference", 0): "missing",
        ("cot", "gsm8k", "only-candidate", 0): "missing",
        ("cot", "gsm8k", "errored", 0): "errored",
        ("cot", "gsm8k", "unequal", 0): "unequal",
        ("cot", "gsm8k", "errored-and-unequal", 0): "errored",
        ("cot", "gsm8k", "other-repeat", 0): "missing",
        ("cot", "gsm8k", "other-repeat", 1): "missing",
    }
    assert [pairing.count(reason) for reason in ("missing", "errored", "unequal")] == [4, 2, 1]
    assert (pairing.total, pairing.foreign) == (9, 0)
    for key, pair in pairing.pairs.items():
        assert (pair.reference.role, pair.candidate.role) == ("reference", "candidate")
        assert pair.reference.key.pair == pair.candidate.key.pair == key


def test_an_error_of_either_role_spoils_the_pair() -> None:
    samples = [make("1", role="reference", error="server: 500"), make("1", score=1.0)]
    samples += [make("2", role="reference", score=1.0), make("2", error="server: 500", score=1.0)]
    assert list(pair_samples(samples).unusable.values()) == ["errored", "errored"]


def test_a_plan_counts_what_never_ran_and_what_nobody_asked() -> None:
    samples = [*both("asked"), *both("other prompt"), *both("foreign"), make("foreign", repeat=1), make("half")]
    planned: dict[PairKey, str | None] = {
        ("cot", "gsm8k", "never", 0): "aa",
        ("cot", "gsm8k", "half", 0): "aa",
        ("cot", "gsm8k", "other prompt", 0): "cc",
        ("cot", "gsm8k", "asked", 0): "aa",
    }
    pairing = pair_samples(samples, planned)
    assert list(pairing.pairs) == [("cot", "gsm8k", "asked", 0)]
    assert [key[2] for key in pairing.unusable] == ["never", "half", "other prompt"]  # the plan's order
    assert list(pairing.unusable.values()) == ["missing", "missing", "unequal"]
    assert (pairing.foreign, pairing.total) == (3, 4)
    unknown = pair_samples(samples, dict.fromkeys(planned))
    assert [key[2] for key in unknown.pairs] == ["other prompt", "asked"]
    nothing = pair_samples(samples, {})
    assert (nothing.total, nothing.foreign) == (0, len(samples))


def test_the_noise_role_pairs_with_the_reference_and_with_nobody_else() -> None:
    samples = [*both("1", score=0.0), make("1", role="noise", score=1.0), *both("2"), make("3", role="noise")]
    pairing = pair_samples(samples, role="noise")
    (pair,) = pairing.pairs.values()
    assert (pair.reference.role, pair.candidate.role, pair.candidate.score) == ("reference", "noise", 1.0)
    assert pairing.unusable == {("cot", "gsm8k", "2", 0): "missing", ("cot", "gsm8k", "3", 0): "missing"}
    assert len(pair_samples(samples).pairs) == 2 and pair_samples(samples).unusable == {}
    planned: dict[PairKey, str | None] = {("cot", "gsm8k", "1", 0): None, ("cot", "gsm8k", "2", 0): None}
    assert pair_samples(samples, planned).foreign == 0  # of the two models; noise is no part of the comparison
    assert pair_samples(samples, planned, "noise").foreign == 1


@pytest.mark.parametrize("role", ["reference", "candidate", "noise"])
def test_pairing_refuses_a_key_that_is_there_twice(role: str) -> None:
    twice = [make(role=role), make(role=role, score=1.0)]
    for planned in (None, {("cot", "gsm8k", "0001", 0): None}):
        with pytest.raises(BadInput, match=f"cot/gsm8k/0001/0/{role} is there twice"):
            pair_samples(twice, planned, "noise" if role == "noise" else "candidate")
    assert pair_samples([make(role="noise")] * 2).total == 0


KEYS: list[PairKey] = [("cot", task, f"{i:03d}", repeat) for task in "ab" for i in range(40) for repeat in range(3)]


@given(st.permutations(KEYS), st.text(max_size=5))
@settings(max_examples=30)
def test_the_sealed_order_does_not_depend_on_the_order_it_is_made_from(keys: list[PairKey], seal: str) -> None:
    assert sealed_order(keys, seal) == sealed_order(KEYS, seal)
    assert sorted(sealed_order(keys, seal)) == sorted(KEYS)


def test_the_sealed_order_is_by_the_hash_of_seal_and_item() -> None:
    def place(key: PairKey) -> str:
        return hashlib.sha256(f"abc {key[0]}/{key[1]}/{key[2]}".encode()).hexdigest()

    assert sealed_order(KEYS, "abc") == sorted(KEYS, key=lambda key: (place(key), key[3]))
    some = KEYS[::7]  # what else is asked moves nothing
    assert sealed_order(some, "abc") == [key for key in sealed_order(KEYS, "abc") if key in some]


def test_repeats_of_an_item_stay_together_in_the_sealed_order() -> None:
    ordered = sealed_order(KEYS, "seal")
    for start in range(0, len(ordered), 3):
        assert len({key[:3] for key in ordered[start : start + 3]}) == 1
        assert [key[3] for key in ordered[start : start + 3]] == [0, 1, 2]


def test_names_with_slashes_are_no_tie_of_the_sealed_order() -> None:
    keys: list[PairKey] = [("cot", *name, repeat) for name in (("a/b", "c"), ("a", "b/c")) for repeat in (0, 1)]
    orders = {tuple(sealed_order(shuffled, "seal")) for shuffled in permutations(keys)}
    assert len(orders) == 1
    assert [key[3] for key in orders.pop()] == [0, 1, 0, 1]


def test_every_seal_draws_another_order_and_every_item_is_first_about_as_often() -> None:
    items: list[PairKey] = [("cot", "gsm8k", str(i), 0) for i in range(10)]
    seals, first, pairs = 4000, Counter[str](), 0
    for seal in range(seals):
        ordered = sealed_order(items, str(seal))
        first[ordered[0][2]] += 1
        pairs += ordered.index(items[0]) < ordered.index(items[9])
    # chi-squared with 9 degrees of freedom is above 27.9 in 0.1 % of the cases; the seals are fixed
    assert sum((first[str(i)] - seals / 10) ** 2 / (seals / 10) for i in range(10)) < 27.9
    assert abs(pairs - seals / 2) < 3.3 * (seals / 4) ** 0.5

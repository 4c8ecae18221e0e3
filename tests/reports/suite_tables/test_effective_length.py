"""Effective context length: the largest length whose score is above RULER's threshold."""

import pytest

from reports.suite_tables.effective_length import effective_length


@pytest.mark.parametrize(
    ("scores", "length"),
    [
        ({}, None),
        ({4096: 0.5}, None),
        ({4096: 0.856}, None),  # above, not at
        ({4096: 0.8561}, 4096),
        ({131072: 0.81, 65536: 0.87, 32768: 0.93, 4096: 0.97}, 65536),
        ({4096: 0.9, 8192: 0.8, 16384: 0.9}, 16384),
    ],
)
def test_it_is_the_largest_length_above_the_threshold(scores: dict[int, float], length: int | None) -> None:
    assert effective_length(scores) == length


def test_another_threshold() -> None:
    assert effective_length({1: 0.9, 2: 0.7}, threshold=0.6) == 2

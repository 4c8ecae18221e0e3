"""What lm-eval calls to score our tasks: filters that find the final answer, and math-verify for expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from suites.readings.final_expressions import final_expression
from suites.readings.final_letters import final_letter
from suites.readings.final_numbers import final_number
from suites.readings.math_grader import same_expression

Texts = Iterable[Iterable[str]]
"""The answers to each question, a list each."""


def final_numbers(texts: Texts, _docs: Any) -> list[list[str]]:
    return _each(final_number, texts)


def final_letters(texts: Texts, docs: Iterable[dict[str, Any]]) -> list[list[str]]:
    """A question that says "cut" was not answered to the end: the budget ended the answer."""
    return [
        [final_letter(text, cut=bool(doc.get("cut"))) for text in answers]
        for answers, doc in zip(texts, docs, strict=True)
    ]


def final_expressions(texts: Texts, _docs: Any) -> list[list[str]]:
    return _each(final_expression, texts)


def math(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """exact_match of one expression. Raises GraderError."""
    return {"exact_match": float(same_expression(doc["answer"], results[0]))}


def _each(find: Callable[[str], str], texts: Texts) -> list[list[str]]:
    return [[find(text) for text in answers] for answers in texts]

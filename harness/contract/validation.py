"""What people wrote, checked against a pydantic model: the first mistake becomes one clear line."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from harness.contract.errors import BadInput, first_error

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], data: Any, what: str) -> M:
    """Check `data` against a pydantic model; the first mistake becomes one clear line.

    Raises:
        BadInput: what is wrong and where; for an unknown key the nearest known one.
    """
    try:
        return model.model_validate(data)
    except UnicodeEncodeError:  # of a message that quotes it
        raise BadInput(f"{what}: a key or a value is no Unicode text (half of a surrogate pair)") from None
    except ValidationError as failure:
        # A misspelt key that is required is also missing: its nearest known one says more than "Field required".
        unknown = next((error["loc"] for error in failure.errors() if error["type"] == "extra_forbidden"), None)
        if unknown is None:
            message = first_error(failure, "value").replace(": Value error, ", ": ", 1)
            raise BadInput(f"{what}: {message}") from None
        known = _keys_at(model, unknown[:-1])
        near = difflib.get_close_matches(str(unknown[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
        raise BadInput(f"{what}: unknown key '{'.'.join(map(str, unknown))}'; {hint}") from None


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields at `location` inside `model`."""
    for part in location:
        if part not in model.model_fields:  # the index of a list, the key of a dict: its model is already found
            continue
        annotation = model.model_fields[str(part)].annotation
        nested = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
        inner = next((a for a in nested if issubclass(a, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)

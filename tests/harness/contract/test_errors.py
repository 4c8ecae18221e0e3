"""What pydantic finds wrong becomes one line."""

import pytest
from pydantic import BaseModel, ValidationError

from harness.contract.errors import first_error


class Row(BaseModel):
    names: list[str]
    count: int = 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"names": ["a", 3], "count": "x"}, "names.1: Input should be a valid string"),
        ({}, "names: Field required"),
        ([], "line: Input should be a valid dictionary or instance of Row"),
    ],
)
def test_the_first_error_has_its_place(data: object, says: str) -> None:
    with pytest.raises(ValidationError) as failure:
        Row.model_validate(data)
    assert first_error(failure.value, "line") == says

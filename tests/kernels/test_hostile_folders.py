"""Whatever a config or a header says, the answer is what is in the folder, or one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.headers import read_header
from quantgate_kernels.settings import FormatError
from quantgate_kernels.validate import Contents, validate

VALUES: list[Any] = [
    None, True, -1, 0, 1, 2, 7, 1 << 70, 0.5, "", "vq", "x\ny", "signs.64", [], ["vq"], {}, {"kind": "universal"},
]  # fmt: skip


@pytest.fixture(scope="module")
def changeable(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changeable")
    for file in mixed.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "config.json").unlink()
    return folder


def places(node: Any) -> Iterator[tuple[Any, ...]]:
    """Ways to everything inside a JSON value."""
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield (key,)
        yield from ((key, *rest) for rest in places(node[key]))


@pytest.mark.slow  # quantizes a whole model
@settings(max_examples=200)
@given(data=st.data())
def test_any_value_anywhere_in_a_config(mixed: Path, changeable: Path, data: st.DataObject) -> None:
    config = copy.deepcopy(json.loads((mixed / "config.json").read_text()))
    ways = [way for way in places(config) if way[0] == "quantization_config"]
    *way, last = data.draw(st.sampled_from(ways))
    node = config
    for key in way:
        node = node[key]
    if data.draw(st.booleans()) and isinstance(node, dict):
        del node[last]
    else:
        node[last] = data.draw(st.sampled_from(VALUES))
    (changeable / "config.json").write_text(json.dumps(config))
    try:
        assert isinstance(validate(changeable, 2), Contents)
    except FormatError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


ENTRY = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


@settings(max_examples=150)
@given(
    st.one_of(
        st.fixed_dictionaries({}, optional={key: st.sampled_from(VALUES) for key in ENTRY}).map(
            lambda other: {"a": ENTRY | other}
        ),
        st.sampled_from([*VALUES, {"a": 1}, {"a": ENTRY, "b": ENTRY}, {"a": {}}]),
    ),
    st.integers(0, 14),
)
def test_any_value_anywhere_in_a_header(tmp_path_factory: pytest.TempPathFactory, header: Any, length: int) -> None:
    file = tmp_path_factory.getbasetemp() / "hostile.safetensors"
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(length))
    try:
        found = read_header(file)
        assert {name: tuple(entry.read().shape) for name, entry in found.items()} in ({"a": (2, 3)}, {})
    except FormatError as error:
        assert "\n" not in str(error)

"""Every room imports what its docstring allows and nothing else of ours, wherever in a file the import stands.

Not seen: modules named by strings, as for `python -m` and for vLLM's --middleware.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("harness", "suites", "reports", "quantizers", "kernels/quantgate_kernels", "benchmarks")
OURS = {Path(folder).name for folder in FOLDERS} | {"kernels", "tests"}
PACKAGES = {
    ".".join(init.parent.relative_to(ROOT / "kernels" if folder.startswith("kernels") else ROOT).parts): init.parent
    for folder in FOLDERS
    for init in (ROOT / folder).rglob("__init__.py")
}
DOCSTRINGS = {name: ast.get_docstring(ast.parse((path / "__init__.py").read_text())) for name, path in PACKAGES.items()}
ROOMS = {
    name: text.split("May import: ")[1].rstrip(".").replace(",", " ").split()
    for name, text in DOCSTRINGS.items()
    if text and "May import: " in text
}


def room_of(module: str) -> str:
    """The innermost room that a module lies in."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len, default=module)


def imported(file: Path) -> set[str]:
    """Dotted names of ours that a file imports, `from a import b` as `a.b`."""
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: line {node.lineno}: write the whole name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in OURS and name != "harness.__version__"}


def files_of(room: str) -> list[Path]:
    inner = [PACKAGES[other] for other in ROOMS if other != room and other.startswith(f"{room}.")]
    return [f for f in PACKAGES[room].rglob("*.py") if not any(folder in f.parents for folder in inner)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_its_docstring_allows(room: str) -> None:
    for file in files_of(room):
        for name in imported(file):
            allowed = room_of(name) == room or any(f"{name}.".startswith(f"{entry}.") for entry in ROOMS[room])
            assert allowed, f"{file.relative_to(ROOT)} imports {name}"


def test_every_room_has_its_rule_and_no_two_need_each_other() -> None:
    assert {room.split(".")[0] for room in ROOMS} == {Path(folder).name for folder in FOLDERS}
    assert {name for name in PACKAGES if name.startswith("harness.") and name.count(".") == 1} <= ROOMS.keys()
    needs = {room: {room_of(name) for file in files_of(room) for name in imported(file)} - {room} for room in ROOMS}
    assert set(TopologicalSorter(needs).static_order()) >= ROOMS.keys()  # raises CycleError where rooms form a circle


def test_what_runs_inside_vllm_needs_two_other_files() -> None:
    assert {name.rpartition(".")[0] for name in imported(ROOT / "harness/endpoint/score_route.py")} == {
        "harness.endpoint.answers",
        "harness.endpoint.connections",
    }

"""Every room imports what its docstring allows and nothing else of ours, wherever in a file the import stands."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("harness", "suites", "reports", "quantizers", "quantgate_kernels", "kernels", "benchmarks", "tests")
FOLDERS = ("harness", "suites", "reports", "quantizers", "kernels/quantgate_kernels", "benchmarks")
ROOMS = {
    init.parent: said.split("May import: ")[1].rstrip(".").split()
    for folder in FOLDERS
    for init in (ROOT / folder).rglob("__init__.py")
    if "May import: " in (said := ast.get_docstring(ast.parse(init.read_text("utf-8"))) or "")
}


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of what is imported, `from a import b` as `a.b`."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {f"{n.module}.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}


@pytest.mark.parametrize("room", [pytest.param(room, id=str(room.relative_to(ROOT))) for room in ROOMS])
def test_a_room_imports_what_its_docstring_allows(room: Path) -> None:
    me = ".".join(room.relative_to(ROOT / "kernels" if "kernels" in room.parts else ROOT).parts)
    allowed = (me, *(name.rstrip(",") for name in ROOMS[room]))
    for file in room.rglob("*.py"):
        if next(parent for parent in file.parents if parent in ROOMS) == room:
            for name in imported(ast.parse(file.read_text("utf-8"))):
                if name.split(".")[0] in OURS:
                    assert any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed), f"{file}: {name}"

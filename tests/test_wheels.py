"""Both distributions, built as a release builds them: every file is in, and they work where nothing else of ours is."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import quantgate_kernels
from wheels import PACKAGES, PIP, SOURCES, build, run

import harness

IMPORTS = """
import harness, quantgate_kernels, quantizers, reports, suites, sys
from importlib.resources import files
from pathlib import Path
for package in (harness, quantgate_kernels, quantizers, reports, suites):
    assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
assert files("harness").joinpath("policies", "release.yaml").read_text("utf-8")
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("setuptools", minversion="78")
    return {name: build(name, tmp_path_factory.mktemp("build") / name) for name in PACKAGES}


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_every_file_of_every_package_is_in_the_wheel(wheels: dict[str, Path], name: str) -> None:
    source = SOURCES[name]
    files = [path for package in PACKAGES[name] for path in (source / package).rglob("*") if path.is_file()]
    wanted = {path.relative_to(source).as_posix() for path in files if "__pycache__" not in path.parts}
    found = set(zipfile.ZipFile(wheels[name]).namelist())
    info = f"{name}-{harness.__version__}.dist-info"
    assert {path for path in found if not path.startswith(info)} == wanted
    assert f"{info}/licenses/LICENSE" in found
    if name == "quantgate":  # of each kind that setuptools takes only when it is told to
        assert {Path(path).suffix for path in wanted} == {".py", ".yaml", ".txt", ".jsonl", ".j2", ".css", ".js"}


@pytest.mark.slow
def test_installed_alone_they_are_all_that_is_imported(wheels: dict[str, Path], tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "fresh", folder=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    run(*PIP, "--python", python, "install", "--no-index", "--no-deps", *wheels.values(), folder=tmp_path)
    run(python, "-c", IMPORTS, folder=tmp_path)
    assert (python.parent / "quantgate").exists()


def test_both_have_one_version_and_ask_for_one_python() -> None:
    asked = [tomllib.loads((folder / "pyproject.toml").read_text("utf-8")) for folder in SOURCES.values()]
    assert harness.__version__ == quantgate_kernels.__version__
    assert len({project["project"]["requires-python"] for project in asked}) == 1

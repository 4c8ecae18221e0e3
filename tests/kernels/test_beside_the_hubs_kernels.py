"""quantgate-kernels and Hugging Face's `kernels` live in one environment, and neither is taken for the other."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from wheels import PIP, ROOT, build, run

THEIRS = "kernels==0.17.2"
IMPORTS = """
import sys
sys.path[:0] = {path!r}
import kernels, quantgate_kernels.formats
from pathlib import Path
for package in (kernels, quantgate_kernels):
    assert Path(package.__file__).is_relative_to({both!r}), package.__file__
assert hasattr(kernels, "get_kernel") and not hasattr(quantgate_kernels, "get_kernel")
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions."""
    pytest.importorskip("setuptools", minversion="78")
    folder = tmp_path_factory.mktemp("both")
    download = [*PIP, "download", "--no-deps", "--only-binary=:all:", "--retries=0", "--timeout=10", THEIRS]
    done = subprocess.run(download, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        assert "CI" not in os.environ, f"where it counts, the registry must answer: {done.stderr}"
        pytest.skip(f"{THEIRS} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    (theirs,) = folder.glob("kernels-*.whl")
    ours = build("quantgate_kernels", folder / "build")
    run(*PIP, "install", "--no-index", "--no-deps", "--target", folder / "both", theirs, ours, folder=folder)
    return folder / "both"


@pytest.mark.slow
def test_no_file_is_of_both(both: Path) -> None:
    files = {found.name: {str(path) for path in found.files or ()} for found in distributions(path=[str(both)])}
    assert files.keys() == {"kernels", "quantgate-kernels"} and all(files.values())
    assert not files["kernels"] & files["quantgate-kernels"]


@pytest.mark.slow
@pytest.mark.parametrize("in_front", [(), (str(ROOT),)], ids=["elsewhere", "in a checkout"])
def test_both_are_imported_in_one_process(both: Path, in_front: tuple[str, ...]) -> None:
    """In a checkout too, where the folder kernels/ is on the path: it has no __init__.py and gives way."""
    code = IMPORTS.format(path=[*in_front, str(both)], both=str(both))
    done = subprocess.run([sys.executable, "-E", "-c", code], cwd=both, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

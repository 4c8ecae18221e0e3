"""Codes in a serving image: the plugin that is installed here is mounted, whole and found by its entry point."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.contract.errors import BadInput
from harness.contract.settings import Serving
from harness.serving import flags, plugin
from harness.serving.hardware import Hardware
from harness.serving.plugin import MOUNTED, needs_plugin, plugin_folder

CPU = Hardware(processor="test", cpus=[4, 5], memory_gib=64, free_gib=32, gpus=[])
ENTRY = "[vllm.general_plugins]\nquantgate = quantgate_kernels.vllm_plugin.register:register\n"
FOUND = """
from importlib.metadata import entry_points
(entry,) = entry_points(group="vllm.general_plugins")
print(entry.load().__module__)
import quantgate_kernels
print(quantgate_kernels.__file__)
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    texts = {"entry_points.txt": ENTRY, "METADATA": "Metadata-Version: 2.1\nName: quantgate-kernels\nVersion: 0.1.0\n"}
    made = SimpleNamespace(version="0.1.0", texts=texts, read_text=texts.get)
    monkeypatch.setattr(metadata, "distribution", lambda name: made)
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    return made


def test_a_fresh_python_finds_the_entry_point_in_the_folder() -> None:
    folder = plugin_folder()
    assert plugin_folder() == folder  # made again over what was there
    result = subprocess.run(
        [sys.executable, "-S", "-c", FOUND],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.split() == [
        "quantgate_kernels.vllm_plugin.register",
        str(folder / "quantgate_kernels/__init__.py"),
    ]
    assert list((folder / "quantgate_kernels/cuda/src").glob("*.cu"))


@pytest.mark.parametrize("method", ["quantgate", "aqlm", "compressed-tensors", None])
def test_it_is_mounted_for_codes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str | None) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(metadata, "version", lambda name: "0.32.0")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": method and {"quant_method": method}}))
    (plan,) = flags.plan_servers(Serving(image="i"), {"candidate": tmp_path}, CPU, "run")
    wanted = method in ("quantgate", "aqlm")
    assert needs_plugin(tmp_path) is wanted
    assert (f"PYTHONPATH={MOUNTED}" in plan.command) is wanted
    assert any(argument.endswith(f":{MOUNTED}:ro") for argument in plan.command) is wanted


def test_an_installation_without_the_plugin_is_named(installed: SimpleNamespace) -> None:
    installed.texts.clear()
    with pytest.raises(BadInput, match=f"{plugin.DISTRIBUTION} with its plugin is not installed here"):
        plugin_folder()

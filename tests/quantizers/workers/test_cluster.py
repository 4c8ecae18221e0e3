"""A Ray cluster of two nodes encodes to the bytes of this process, and goes on when one of them is killed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import CALIBRATION, folder_bytes
from tiny_moe import save_tiny_moe

from quantizers import tall
from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe
from quantizers.schemes import stacked
from quantizers.workers import cluster
from quantizers.workers.cluster import Cluster

RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray")


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes on this machine. Beside other tests a worker may take minutes to import torch."""
    monkeypatch.setattr(cluster, "START_SECONDS", 600)
    from ray.cluster_utils import Cluster as LocalCluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    settings = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    started = LocalCluster(initialize_head=True, head_node_args=settings)
    try:
        yield started
    finally:
        started.shutdown()


@RAY
@pytest.mark.long
def test_a_killed_node_changes_no_byte(two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = two_nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 64 * 128)
    monkeypatch.setitem(stacked.STACK_BYTES, "cpu", 4 * 64 * 64)
    (tmp_path / "text.txt").write_text(CALIBRATION, encoding="utf-8")
    calibration = Calibration(samples=8, length=32, file=tmp_path / "text.txt")
    recipe = Recipe(name="ray", tier="int4-rotated", tune="none", calibration=calibration)
    model = save_tiny_moe("qwen3_moe", tmp_path / "model")
    here = quantize(model, recipe, tmp_path / "here", device="cpu")
    sent: list[str] = []
    started: list[Cluster] = []
    send = Cluster._sent

    def watched(self: Cluster, arguments: tuple[Any, ...]) -> Any:
        """The node is killed while it has a task."""
        started[:] = [self]
        found = send(self, arguments)
        sent.append(str(found.worker.actor))
        if len(sent) == 3:
            assert len(self._started) == 2 and len(set(sent)) == 2
            two_nodes.remove_node(second, allow_graceful=False)
        return found

    monkeypatch.setattr(Cluster, "_sent", watched)
    there = quantize(model, recipe, tmp_path / "there", device="cpu", ray=two_nodes.address)
    assert folder_bytes(there) == folder_bytes(here)
    assert len(sent) > 3 and len(set(sent[-3:])) == 1  # the one that is left had what the other one lost


@RAY
@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        QuantizeError, match=r"^no Ray cluster answers at auto \(.*\): start one with `ray start --head`"
    ):
        quantize(tmp_path, Recipe(name="ray"), tmp_path / "out", ray="auto")


def test_without_the_package_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(QuantizeError, match=r"^--ray needs the package ray .*: pip install -e '\.\[ray\]', or leave"):
        quantize(tmp_path, Recipe(name="ray"), tmp_path / "out", ray="auto")


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_tensors_travel_as_bytes(dtype: torch.dtype) -> None:
    from quantizers.workers.cluster import _array, _tensor

    tensor = torch.randn(3, 4, 8).to(dtype).transpose(0, 1)
    found = _tensor(_array(tensor))
    assert found.dtype == dtype and torch.equal(found.view(torch.uint8), tensor.contiguous().view(torch.uint8))

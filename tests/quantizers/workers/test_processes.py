"""Processes beside this one encode to the very bytes of this one; a lost one is named, and nothing is lost with it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_llama import CALIBRATION, folder_bytes, save_tiny_llama
from tiny_moe import save_tiny_moe

from quantizers import tall
from quantizers.curvature import HessianError
from quantizers.each import quantize_each
from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe
from quantizers.schemes import TIERS, stacked
from quantizers.tall import quantize_tall
from quantizers.workers import opening, processes
from quantizers.workers.opening import open_workers
from quantizers.workers.processes import Processes
from quantizers.workers.tasks import HERE

DEVICES = ["cpu", "cpu"]


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 128 rows and stacks of one expert of the tiny models."""
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 64 * 128)
    monkeypatch.setitem(stacked.STACK_BYTES, "cpu", 4 * 64 * 64)


@pytest.fixture
def text(tmp_path: Path) -> Calibration:
    (tmp_path / "text.txt").write_text(CALIBRATION, encoding="utf-8")
    return Calibration(samples=8, length=32, file=tmp_path / "text.txt")


def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "host_devices", lambda device: DEVICES)


@pytest.mark.slow
@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (lambda folder: save_tiny_moe("qwen3_moe", folder), {"tier": "int4-rotated", "tune": "none"}),
        (lambda folder: save_tiny_moe("qwen3_moe", folder), {"tier": "int4", "tune": "fast"}),
        pytest.param(save_tiny_llama, {"tier": "int4-rotated", "tune": "blocks"}, marks=pytest.mark.long),
    ],
)
def test_two_processes_write_the_bytes_of_one(
    make: Callable[[Path], Path],
    settings: dict[str, str],
    text: Calibration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make(tmp_path / "model")
    recipe = Recipe.model_validate({"name": "two", "calibration": text, **settings})
    here = quantize(model, recipe, tmp_path / "here", device="cpu")
    two(monkeypatch)
    seen, before = set[int](), children()

    def progress(stage: str, done: int, total: int) -> None:
        seen.update(children() - before)

    there = quantize(model, recipe, tmp_path / "there", device="cpu", progress=progress)
    assert len(seen) == 2 and not children() - before
    assert folder_bytes(there) == folder_bytes(here)


def children() -> set[int]:
    """Processes that this one started; other tests may have left some of theirs."""
    return {process.pid for process in active_children() if process.pid}


@pytest.mark.slow
@pytest.mark.usefixtures("small_tasks")
def test_a_killed_process_is_named_and_the_same_call_goes_on(
    text: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny_moe("qwen3_moe", tmp_path / "model")
    recipe = Recipe(name="killed", tier="int4-rotated", tune="none", calibration=text)
    expected = folder_bytes(quantize(model, recipe, tmp_path / "here", device="cpu"))
    two(monkeypatch)
    layers, before = list[int](), children()

    def killer(stage: str, done: int, total: int) -> None:
        layers.append(done) if stage == "layer" else None
        if layers[-1:] == [1] and stage == "columns" and (own := children() - before):
            os.kill(max(own), signal.SIGKILL)

    line = (
        r"^the worker process on cpu died \(killed by SIGKILL; out of memory is likely: make room\): nothing is "
        r"half-written, and the same command goes on at the unfinished layer$"
    )
    with pytest.raises(QuantizeError, match=line):
        quantize(model, recipe, tmp_path / "out", device="cpu", progress=killer)
    assert not (tmp_path / "out").exists() and not children() - before
    layers.clear()
    again = quantize(model, recipe, tmp_path / "out", device="cpu", progress=lambda s, d, t: layers.append(d))
    assert folder_bytes(again) == expected


def problem(count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(256, 128, generator=generator) for _ in range(count)]
    weights = [torch.randn(16, 128, generator=generator) for _ in range(count)]
    return weights, [each.t() @ each for each in inputs]


@pytest.mark.long
def test_a_broken_hessian_comes_back_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stack and of a tall weight; the same line as here, and the workers can be used again."""
    monkeypatch.setitem(stacked.STACK_BYTES, "cpu", 2 * 4 * 16 * 128)
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 128 * 16)
    scheme = TIERS["int4-rotated"]({"a": 128}, None, 0.01)
    weights, hessians = problem(6)
    broken = [*hessians[:3], torch.full((128, 128), float("nan")), *hessians[4:]]
    with Processes(DEVICES) as workers:
        lines = []
        for who in (HERE, workers):
            with pytest.raises(HessianError) as caught:
                list(quantize_each(scheme, weights, broken, lambda: None, who))
            assert caught.value.number == 3
            lines.append(str(caught.value))
            with pytest.raises(HessianError) as caught:
                list(quantize_tall(scheme, weights, broken[3], lambda: None, who))
            lines.append(str(caught.value))
        assert lines[:2] == lines[2:] and lines[0].startswith("weight 4 of 6: the Hessian has a diagonal")
        for each in (partial(quantize_each, hessians=hessians), partial(quantize_tall, hessian=hessians[0])):
            expected = list(each(scheme, weights, tick=lambda: None))
            found = list(each(scheme, weights, tick=lambda: None, workers=workers))
            for part, same in zip(found, expected, strict=True):
                assert all(torch.equal(part[name], same[name]) for name in same)


def test_tasks_are_made_only_a_few_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for each worker, and one is sent as one is taken."""
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 128 * 16)
    weights, hessians = problem(12)
    scheme, log = TIERS["int4"]({"a": 128}, None, 0.01), list[str]()

    class Slow(Processes):
        def _send(self, task: object) -> object:  # type: ignore[override]
            log.append("sent")
            return task

        def _receive(self, sent: object) -> object:  # type: ignore[override]
            log.append("taken")
            return sent.run(lambda: None)  # type: ignore[attr-defined]

    list(quantize_tall(scheme, weights, hessians[0], lambda: None, Slow(DEVICES)))
    assert log == ["sent"] * 4 + ["taken", "sent"] * 8 + ["taken"] * 4
    log.clear()
    list(quantize_tall(scheme, weights[:1], hessians[0], lambda: None, Slow(DEVICES)))
    assert not log  # one task alone needs no process


def test_shared_memory_too_small_for_a_task_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 128 * 16)
    monkeypatch.setattr(Processes, "_start", lambda self: self._started.append(processes._Worker("cpu", None, None)))  # type: ignore[arg-type]
    monkeypatch.setattr(Processes, "close", lambda self: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    (weights, hessians), scheme = problem(2), TIERS["int4"]({"a": 128}, None, 0.01)
    with pytest.raises(QuantizeError, match=r"^/dev/shm has 0 MiB left, .* --ipc=host .* --device cuda:0$"):
        list(quantize_tall(scheme, weights, hessians[0], lambda: None, Processes(DEVICES)))


def test_devices_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in (None, "cuda"):
        where, workers = open_workers(device, None)
        assert where == "cuda" and isinstance(workers, Processes) and workers.devices == ["cuda:0", "cuda:1"]
    assert open_workers("cuda:1", None) == ("cuda:1", HERE) and open_workers("cpu", None) == ("cpu", HERE)
    with pytest.raises(QuantizeError, match="device cuda:2: torch sees 2 GPUs here"):
        open_workers("cuda:2", None)
    with pytest.raises(QuantizeError, match="there is no device gpu: take cpu, cuda"):
        open_workers("gpu", None)

"""Where machine code is kept, and what is said where there is no compiler, driver or GPU of the kind."""

from __future__ import annotations

import ctypes
from itertools import product
from pathlib import Path

import pytest
import torch
from kernel_cases import linear
from quantgate_kernels.cuda import compile as compiler
from quantgate_kernels.cuda import launch, vq_gemm, vq_gemv
from quantgate_kernels.cuda.tier import Tier
from quantgate_kernels.ops import linear as ops


def test_machine_code_is_compiled_once_and_kept_by_all_that_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[list[str]] = []

    def compile_(library: ctypes.CDLL, source: str, options: list[str]) -> bytes:
        compiled.append(options)
        return source.encode()

    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(compiler, "_library", lambda: None)
    monkeypatch.setattr(compiler, "_version", lambda library: (13, 0))
    monkeypatch.setattr(compiler, "_compile", compile_)
    assert [compiler.cubin("a", {"N": 1}, "sm_90") for _ in range(2)] == [b"a", b"a"]
    assert len(compiled) == 1 and "-DN=1" in compiled[0] and "--gpu-architecture=sm_90" in compiled[0]
    assert compiler.cubin("b", {"N": 1}, "sm_90") == b"b"
    compiler.cubin("a", {"N": 2}, "sm_90")
    compiler.cubin("a", {"N": 1}, "sm_100")
    monkeypatch.setattr(compiler, "_version", lambda library: (13, 1))
    compiler.cubin("a", {"N": 1}, "sm_90")
    assert len(compiled) == 5
    assert sorted(file.suffix for file in (tmp_path / "kept").iterdir()) == [".cubin"] * 5


def test_the_folder_is_ones_own_then_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTGATE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert compiler.folder() == Path("/somewhere/quantgate/kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compiler.folder() == Path.home() / ".cache/quantgate/kernels"


def test_without_a_compiler_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_NAMES", ("libno-such-compiler.so",))
    compiler._library.cache_clear()
    with pytest.raises(compiler.CompileError, match="install nvidia-cuda-nvrtc"):
        compiler._library()


def test_gpus_older_than_hopper_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    launch.architecture.cache_clear()
    with pytest.raises(launch.LaunchError, match="NVIDIA A100 is older than Hopper"):
        launch.architecture(0)
    launch.architecture.cache_clear()


@pytest.mark.parametrize(
    ("capability", "name", "together"), [((9, 0), "sm_90a", 4), ((10, 0), "sm_100", 1), ((12, 0), "sm_120", 1)]
)
def test_four_warps_multiply_together_on_hopper_alone(
    capability: tuple[int, int], name: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    launch.architecture.cache_clear()
    assert (launch.architecture(0), vq_gemm.together_of(0)) == (name, together)
    launch.architecture.cache_clear()


def test_what_no_kernel_reads_is_refused_before_anything_is_compiled() -> None:
    stored, tier, tables = linear("vq2", 64, 256)
    with pytest.raises(ValueError, match="run on a GPU, not on cpu"):
        ops.prepare(stored, tier, tables, "cpu")
    with pytest.raises(ValueError, match="'aqlm'"):
        ops.prepare(stored, tier | {"format": "aqlm"}, tables, "cpu")


@pytest.mark.parametrize(("rows", "inputs"), [(8192, 8192), (1536, 8960), (17920, 1536), (53, 192), (16, 128)])
@pytest.mark.parametrize("n_tiles", [1, 8])
def test_every_warp_that_has_work_has_a_piece(rows: int, inputs: int, n_tiles: int) -> None:
    splits = vq_gemv.splits_of(rows, inputs, 132, 16, n_tiles)
    assert 1 <= splits <= min(16, -(-inputs // 128))


def test_every_kernel_fits_a_multiprocessor() -> None:
    tiers = (Tier(4, 8), Tier(8, 12), Tier(4, 12), Tier(1, 2, 16), Tier(1, 2, 12))
    for tier, n_tiles, steps in product(tiers, vq_gemv.N_TILES, (1, 2, 3, 14)):
        numbers = vq_gemv.definitions(8192, tier, n_tiles, steps)
        assert vq_gemv.shared_bytes(numbers, 8192) <= vq_gemv.MOST_SHARED
        assert numbers["TILES"] <= steps

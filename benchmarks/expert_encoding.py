"""How long the experts of one layer take to encode, and how much memory.

    python -m benchmarks.expert_encoding --out FILE                       # 8 small experts, on a CPU
    python -m benchmarks.expert_encoding --glm5 --device cuda --out FILE  # GLM-5's 256 experts of 2,048 x 6,144

Gate and up [I, D] of all experts share one Hessian, each down [D, I] has its own. Weights are normal, times a scale for
each row and column; Hessians are those of inputs whose spectrum falls by a power law. Calibration and tuning are no
part of it. `--experts N` encodes N of the experts and says in `whole` what all would take: the seconds of weights and
of downs' Hessians are scaled up, those of the one Hessian of gate and up are not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import quantizers.curvature
import quantizers.gptq
import quantizers.schemes.int_groups
from benchmarks.kl_panel import machine
from benchmarks.memory import peak_memory
from quantizers.each import quantize_each
from quantizers.schemes import TIERS, Parts, Scheme
from quantizers.tall import quantize_tall, turned_hessian

DEFAULT_TIERS = ("vq1", "vq1.5", "vq2", "trellis2", "vq3", "int4")
GLM5 = {"all_experts": 256, "inner": 2048, "hidden": 6144}
DAMPING = 0.01
FACTORING = (
    (quantizers.curvature, "factors_of"),
    (quantizers.gptq, "ordered_factor"),
    (quantizers.schemes.int_groups, "ordered_factor"),
)
"""What finds the factors of Hessians, as its callers know it."""


class Stopwatch:
    """Seconds by name: between CUDA events, which do not hold up what they measure, or of the clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spans: dict[str, list[tuple[Any, Any]]] = {}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = self._mark()
        yield
        self.spans.setdefault(name, []).append((start, self._mark()))

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, every call of which is timed."""

        def call(*arguments: Any) -> Any:
            with self.span(name):
                return function(*arguments)

        return call

    def seconds(self, name: str) -> float:
        """All spans of a name together; 0 if there was none."""
        spans = self.spans.get(name, [])
        if self.device.type != "cuda":
            return float(sum(stop - start for start, stop in spans))
        torch.cuda.synchronize(self.device)
        return float(sum(start.elapsed_time(stop) for start, stop in spans)) / 1000

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event


def weight_of(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """Normal weights float32 [rows, columns] with a log-normal scale for each row and each column."""
    device = generator.device

    def scales(count: int) -> torch.Tensor:
        return torch.exp(0.3 * torch.randn(count, generator=generator, device=device))

    weight: torch.Tensor = torch.randn(rows, columns, generator=generator, device=device) / columns**0.5
    return weight.mul_(scales(rows)[:, None]).mul_(scales(columns))


def basis_of(columns: int, generator: torch.Generator) -> torch.Tensor:
    """[columns, columns]: normal numbers times it are inputs whose spectrum falls as 1 / k."""
    device = generator.device
    turn = torch.linalg.qr(torch.randn(columns, columns, generator=generator, device=device))[0]
    basis: torch.Tensor = turn * torch.arange(1, columns + 1, device=device, dtype=torch.float32).rsqrt()[:, None]
    return basis


def hessian_of(basis: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """2 X^T X [columns, columns] of twice as many inputs as they have columns."""
    columns = len(basis)
    inputs = torch.randn(2 * columns, columns, generator=generator, device=basis.device) @ basis
    hessian: torch.Tensor = 2 * inputs.t() @ inputs
    return hessian


def encode(tier: str, all_experts: int, experts: int, inner: int, hidden: int, device: torch.device) -> dict[str, Any]:
    """Encode gate, up and down of `experts` experts: seconds, peak memory, errors; what `all_experts` would take."""
    scheme: Scheme = TIERS[tier]({"gate": hidden, "down": inner}, None, DAMPING)
    scheme.tables([hidden])  # makes the codebook: once for all models
    generator = torch.Generator(device).manual_seed(0)
    watch, peaks, errors = Stopwatch(device), dict[str, float](), dict[str, float]()

    with ExitStack() as stack:
        for module, name in FACTORING:
            stack.enter_context(mock.patch.object(module, name, watch.timed("factors", getattr(module, name))))

        def run(part: str, weights: list[torch.Tensor], hessians: list[torch.Tensor]) -> None:
            with _peak(device, peaks, part), watch.span(part):
                if part == "gate_up":
                    found = list(quantize_tall(scheme, weights, hessians[0], lambda: None))
                else:
                    found = list(quantize_each(scheme, weights, hessians, lambda: None))
            errors[part] = _error(scheme, scheme.turn(weights[0]), turned_hessian(scheme, hessians[0]), found[0])
            watch.spans[f"{part}_factors"] = watch.spans.pop("factors", [])

        hessian = hessian_of(basis_of(hidden, generator), generator)
        run("gate_up", [weight_of(inner, hidden, generator) for _ in range(2 * experts)], [hessian])
        basis = basis_of(inner, generator)
        hessians = [hessian_of(basis, generator) for _ in range(experts)]
        run("down", [weight_of(hidden, inner, generator) for _ in range(experts)], hessians)

    seconds = {name: watch.seconds(name) for name in ("gate_up", "gate_up_factors", "down", "down_factors")}
    count, share = 3 * experts * inner * hidden, all_experts / experts
    whole = (seconds["gate_up"] - seconds["gate_up_factors"] + seconds["down"]) * share + seconds["gate_up_factors"]
    return {
        "seconds": {name: round(value, 6) for name, value in seconds.items()},
        "peak_gib": {name: round(value, 3) for name, value in peaks.items()},
        "weights_per_second": round(count / (seconds["gate_up"] + seconds["down"])),
        "relative_error": {name: round(value, 5) for name, value in errors.items()},
        "whole": {"scaled": share != 1, "seconds": round(whole, 3)},
    }


@contextmanager
def _peak(device: torch.device, peaks: dict[str, float], name: str) -> Iterator[None]:
    """The GPU memory that is held at most inside; on a CPU what the process held at most so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield
    held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory() << 20
    peaks[name] = held / (1 << 30)


def _error(scheme: Scheme, weight: torch.Tensor, hessian: torch.Tensor, parts: Parts) -> float:
    """The squared error of the outputs over their squared size: a fast way to something else would show."""
    error = weight - scheme.scaled(scheme.units(parts), scheme.stored(parts["scales"]))
    return float(((error @ hessian) * error).sum() / ((weight @ hessian) * weight).sum())


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.expert_encoding", description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--all-experts", type=int, default=8, help="of the layer")
    parser.add_argument("--inner", type=int, default=128, help="outputs of gate and up")
    parser.add_argument("--hidden", type=int, default=256, help="inputs of gate and up")
    parser.add_argument("--glm5", action="store_true", help="the shapes of GLM-5")
    parser.add_argument("--experts", type=int, help="that are encoded; all, if not said")
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=DEFAULT_TIERS)
    parser.add_argument("--rounds", type=int, default=1, help="of each tier; the first captures CUDA graphs")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    if asked.glm5:
        vars(asked).update(GLM5)
    experts = asked.experts or asked.all_experts
    if not 1 <= experts <= asked.all_experts:
        parser.error(f"--experts {experts} is not between 1 and {asked.all_experts}")
    record: dict[str, Any] = {
        "command": f"python -m benchmarks.expert_encoding {' '.join(arguments or sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine() | {"device": str(asked.device)},
        "versions": {"torch": metadata.version("torch")},
        "layer": {"experts": asked.all_experts, "inner": asked.inner, "hidden": asked.hidden},
        "encoded_experts": experts,
        "results": {},
    }
    for tier in asked.tiers:
        record["results"][tier] = []
        for _ in range(asked.rounds):
            found = encode(tier, asked.all_experts, experts, asked.inner, asked.hidden, asked.device)
            record["results"][tier].append(found)
            asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
            print(f"{tier}: {json.dumps(found)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

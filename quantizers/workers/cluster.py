"""Workers on the machines of a Ray cluster: one for each GPU, or for each machine where no GPU is used.

Each keeps its GPU from the first task to the last, and with it CUDA graphs and factors. What a lost one had is given to
the others.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from quantizers.checkpoint import one_line
from quantizers.code_digest import code_sha256
from quantizers.curvature import HessianError
from quantizers.errors import QuantizeError
from quantizers.schemes.base import Parts
from quantizers.workers.spread import Runner, Spread, packed
from quantizers.workers.tasks import Task

START_SECONDS = 120
"""For a worker to import torch; one whose GPU is somebody else's never starts."""

Array = tuple[Any, torch.dtype]
"""Bytes of a tensor, as Ray carries them without copies, and what they mean."""


@dataclass(eq=False)
class _Worker:
    actor: Any
    tasks: int = 0
    """That it has been sent, and whose parts were not taken yet."""


@dataclass(eq=False)
class _Sent:
    arguments: tuple[Any, ...]
    """Of `Encoder.run`: references to what lies in this machine's object store until its parts are taken."""
    worker: _Worker
    answer: Any
    """Reference."""


class Encoder:
    """What runs on the machines of the cluster."""

    def __init__(self, kind: str, threads: int) -> None:
        self.runner = Runner(kind, threads)

    def code(self) -> str:
        """Which quantizers its machine has."""
        return code_sha256()

    def run(self, scheme: Any, weights: Array, hessians: Array, shared: int | None) -> dict[str, Array] | HessianError:
        """The parts of a task, or why there are none."""
        try:
            found = self.runner.run((scheme, _tensor(weights), _tensor(hessians), shared))
        except HessianError as error:
            return error
        return {name: _array(part) for name, part in found.items()}


class Cluster(Spread[_Sent]):
    """The workers of a Ray cluster."""

    def __init__(self, address: str, kind: str | None) -> None:
        """`address` is "auto" or a cluster's; `kind` "cpu" or "cuda", None for GPUs where the cluster has any.

        Raises:
            QuantizeError: Ray is not installed, no cluster answers, or no machine of it has what is needed.
        """
        try:
            import ray
        except ImportError as error:
            raise QuantizeError(
                f"--ray needs the package ray ({one_line(error)}): pip install -e '.[ray]', or leave --ray out"
            ) from None
        self._ray, self._joined, self._started = ray, not ray.is_initialized(), list[_Worker]()
        try:
            if self._joined:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            nodes = [node for node in ray.nodes() if node["Alive"]]
        except Exception as error:  # its errors have no common class
            raise QuantizeError(
                f"no Ray cluster answers at {address} ({one_line(error)}): start one with `ray start --head`, join "
                "this machine to it, or leave --ray out"
            ) from None
        gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
        self.kind = kind or ("cuda" if gpus else "cpu")
        try:
            self._start(address, nodes)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:  # type: ignore[override]
        return len(self._started)

    def _start(self, address: str, nodes: list[dict[str, Any]]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote, asked = self._ray.remote(Encoder), {}
        for node in nodes:
            count, gpus = (int(node["Resources"].get("GPU", 0)), 1) if self.kind == "cuda" else (1, 0)
            for _ in range(count):
                place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                options = remote.options(num_cpus=0, num_gpus=gpus, scheduling_strategy=place)
                worker = _Worker(options.remote(self.kind, torch.get_num_threads()))
                asked[worker.actor.code.remote()] = worker, node["NodeManagerAddress"]
                self._started.append(worker)
        ready, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=START_SECONDS) if asked else ([], [])
        for answer in ready:
            worker, machine = asked[answer]
            try:
                code = self._ray.get(answer)
            except Exception as error:  # whatever a machine may lack
                raise QuantizeError(
                    f"machine {machine} of the Ray cluster cannot run quantgate ({one_line(error)}): install there "
                    "what is installed here"
                ) from None
            if code != code_sha256():
                raise QuantizeError(
                    f"machine {machine} of the Ray cluster has another quantgate: install this one there"
                )
        for answer in late:
            self._lose(asked[answer][0])
        if not self._started:
            wanted = "GPU" if self.kind == "cuda" else "machine"
            raise QuantizeError(
                f"no {wanted} of the Ray cluster at {address} is free: see `ray status`, or leave --ray out"
            )

    def _send(self, task: Task) -> _Sent:
        scheme, weights, hessians, shared = packed(task, lambda shape, dtype: torch.empty(shape, dtype=dtype))
        arguments = (scheme, self._ray.put(_array(weights)), self._ray.put(_array(hessians)), shared)
        return self._sent(arguments)

    def _sent(self, arguments: tuple[Any, ...]) -> _Sent:
        worker = min(self._started, key=lambda it: it.tasks)
        worker.tasks += 1
        return _Sent(arguments, worker, worker.actor.run.remote(*arguments))

    def _receive(self, sent: _Sent) -> Parts:
        lost = self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError
        while True:
            try:
                answer = self._ray.get(sent.answer)
                break
            except lost as error:
                self._lose(sent.worker)
                if not self._started:
                    raise QuantizeError(
                        f"the last worker of the Ray cluster is lost ({one_line(error)}): nothing is half-written, and "
                        "the same command goes on at the unfinished layer"
                    ) from None
                sent = self._sent(sent.arguments)
        sent.worker.tasks -= 1
        if isinstance(answer, HessianError):
            raise answer
        return {name: _tensor(array).clone() for name, array in answer.items()}

    def _lose(self, worker: _Worker) -> None:
        if worker in self._started:
            self._started.remove(worker)
            self._ray.kill(worker.actor)

    def close(self) -> None:
        for worker in self._started:
            self._ray.kill(worker.actor)
        self._started = []
        if self._joined:
            self._ray.shutdown()


def _array(tensor: torch.Tensor) -> Array:
    return tensor.contiguous().view(torch.uint8).numpy(), tensor.dtype


def _tensor(array: Array) -> torch.Tensor:
    """It shares the bytes, which Ray lets nobody write to."""
    values, dtype = array
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch, that they cannot be written to
        return torch.from_numpy(values).view(dtype)

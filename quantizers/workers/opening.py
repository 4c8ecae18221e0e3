"""Which device layers run on, and who encodes their weights."""

from __future__ import annotations

import torch

from quantizers.errors import QuantizeError
from quantizers.workers.processes import Processes
from quantizers.workers.tasks import HERE, Workers


def open_workers(device: str | None, ray: str | None) -> tuple[str, Workers]:
    """The device on which layers run, and the workers.

    "cuda", and None where there is a GPU, are all GPUs of this host; layers run on the first of them.

    Args:
        ray: "auto" or the address of a cluster, whose machines encode.

    Raises:
        QuantizeError: there is no such device, or no such cluster.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    devices = host_devices(chosen)
    if ray is not None:
        from quantizers.workers.cluster import Cluster

        return chosen, Cluster(ray, device and torch.device(device).type)
    return chosen, HERE if len(devices) == 1 else Processes(devices)


def host_devices(device: str) -> list[str]:
    """The devices of this host that are meant by the name of one.

    Raises:
        QuantizeError: there is none of that name.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise QuantizeError(f"there is no device {device}: take cpu, cuda (all GPUs) or cuda:0")
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            raise QuantizeError(f"device {device}: torch sees {count} GPUs here: take cpu, or see `nvidia-smi`")
        if found.index is None:
            return [f"cuda:{number}" for number in range(count)]
    return [device]

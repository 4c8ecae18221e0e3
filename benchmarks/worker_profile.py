"""How long kernels run within a worker of vLLM: functions that it is sent, in a module that it can import."""

from __future__ import annotations

from typing import Any


def begin_profile(worker: Any) -> None:
    """Watch its GPU from here on."""
    from torch.profiler import ProfilerActivity, profile

    worker.quantgate_profile = profile(activities=[ProfilerActivity.CUDA])
    worker.quantgate_profile.__enter__()


def end_profile(worker: Any) -> float:
    """Microseconds since then in which any kernel ran: those that overlap count once."""
    import torch

    torch.cuda.synchronize()
    worker.quantgate_profile.__exit__(None, None, None)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in worker.quantgate_profile.events()
        if event.device_type.name == "CUDA"
    )
    busy, until = 0.0, float("-inf")
    for begin, end in spans:
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return busy

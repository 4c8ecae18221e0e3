"""Which vLLM this plugin is written for; another might load a model and serve it wrongly."""

from __future__ import annotations

from importlib import metadata

SUPPORTED = ((0, 26), (0, 32), (0, 33))


def require_version(found: str | None = None) -> None:
    """Refuse a vLLM that this was not written for, by its number.

    Args:
        found: default: of the installed one.

    Raises:
        ValueError: in one line.
    """
    number = found or metadata.version("vllm")
    release = number.split("+")[0].split(".")
    try:
        major_minor = int(release[0]), int(release[1])
    except (IndexError, ValueError):
        major_minor = (0, 0)
    if major_minor not in SUPPORTED:
        known = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
        own = metadata.version("quantgate-kernels")
        raise ValueError(f"vLLM {number} is none that quantgate-kernels {own} serves codes with ({known}): install one")

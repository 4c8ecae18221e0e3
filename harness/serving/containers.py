"""Containers of a run: what they may use, how they are found again, and the engine that runs them.

The engine is whatever answers Docker's API at DOCKER_HOST, or at the default socket: Docker, or Podman's service. Every
container of ours carries a label with a folder of the run in it, and what is removed is found by that label alone.

    python -m harness.serving.containers FOLDER        removes the containers of FOLDER, for harness/serving/guard.py

An engine without the cgroup for a limit does not refuse: Docker drops limits of memory and of processes with a warning
that neither its SDK nor the agent shows, and runs the container all the same. So what an engine can limit is asked
before (`require_engine`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from harness.contract.errors import BadInput
from harness.contract.settings import Config
from harness.contract.text import quoted
from harness.serving.hardware import GIB

LABEL = "quantgate.run"
"""Its value is an absolute path: the run's folder, or a folder inside it."""
SECONDS = 60
"""The engine answers within this time, or it counts as broken."""


class EngineError(Exception):
    """The container engine does not answer, or refuses; one line."""


class ContainerLimits(Config):
    """What each container may use: the agent works in one and the tests run in one, and the model's code in both."""

    network: bool = False
    """Whether containers reach the network: a model may then look up the fix."""
    memory_gib: float | None = Field(8, ge=0.0625)
    """Memory in GiB, with no swap besides; null: no limit."""
    pids: int | None = Field(2048, ge=16)
    """Processes and threads; null: no limit."""
    cpus: float | None = Field(None, ge=0.01)
    """Processors; null: no limit."""
    sys_admin: bool = False
    """Whether swebench's containers keep CAP_SYS_ADMIN, which it adds for browsers (JavaScript instances). Root in a
    container has ways to the host with it wherever AppArmor or SELinux does not stop them."""

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory_gib is None else int(self.memory_gib * GIB)


@dataclass(frozen=True)
class Engine:
    """A container engine that answers."""

    name: str
    """Docker or Podman."""
    version: str
    api_version: str
    address: str
    folder: str
    """Where it keeps images."""
    cpus: int
    cannot_limit: tuple[str, ...]
    """Fields of ContainerLimits that it would drop."""


def run_arguments(limits: ContainerLimits, label: str) -> list[str]:
    """Arguments of `docker run` (or `podman run`) for a container with these limits and this label."""
    arguments = ["--rm", "--label", f"{LABEL}={label}"]
    if not limits.network:
        arguments += ["--network", "none"]
    if limits.memory_bytes is not None:
        arguments += ["--memory", f"{limits.memory_bytes}b", "--memory-swap", f"{limits.memory_bytes}b"]
    if limits.pids is not None:
        arguments += ["--pids-limit", str(limits.pids)]
    if limits.cpus is not None:
        arguments += ["--cpus", f"{limits.cpus:g}"]
    return arguments


def create_options(limits: ContainerLimits, label: str) -> dict[str, Any]:
    """The same for the Docker SDK's `containers.create`; it removes nothing by itself (no --rm)."""
    options: dict[str, Any] = {"labels": {LABEL: label}}
    if not limits.network:
        options["network_mode"] = "none"
    if limits.memory_bytes is not None:
        options |= {"mem_limit": limits.memory_bytes, "memswap_limit": limits.memory_bytes}
    if limits.pids is not None:
        options["pids_limit"] = limits.pids
    if limits.cpus is not None:
        options["nano_cpus"] = round(limits.cpus * 1e9)
    return options


def engine() -> Engine:
    """The engine that answers. Raises BadInput: none does."""
    try:
        with _client() as client:
            version, info = client.version(), client.info()
            components = version.get("Components") or [{}]
            name = str(components[0].get("Name") or "")
            needs = {"memory_gib": "MemoryLimit", "pids": "PidsLimit", "cpus": "CpuCfsQuota"}
            return Engine(
                name="Podman" if "podman" in name.lower() else "Docker",
                version=str(version.get("Version", "?")),
                api_version=str(version.get("ApiVersion", "?")),
                address=_address(),
                folder=str(info.get("DockerRootDir") or ""),
                cpus=int(info.get("NCPU") or 0),
                cannot_limit=tuple(limit for limit, key in needs.items() if info.get(key) is not True),
            )
    except EngineError as error:
        raise BadInput(f"no container engine answers: {error}; `quantgate doctor` says how to get one") from None


def require_engine(limits: ContainerLimits = ContainerLimits()) -> Engine:  # noqa: B008 - it is frozen
    """The engine that answers and can hold containers to these limits.

    Raises:
        BadInput: none answers, or a limit that it would drop.
    """
    found = engine()
    dropped = [name for name in found.cannot_limit if getattr(limits, name) is not None]
    if dropped:
        raise BadInput(
            f"{found.name} at {found.address} has no cgroup to limit {' and '.join(dropped)} with, and would run "
            f"containers without: mount it (see docker info, WARNING), or set {' and '.join(dropped)} to null"
        )
    if limits.cpus is not None and 0 < found.cpus < limits.cpus:
        raise BadInput(f"containers are to have {limits.cpus:g} cpus, {found.name} at {found.address} has {found.cpus}")
    return found


def cli() -> str:
    """Path of the command `docker`, else `podman`. Raises BadInput: neither is there."""
    command = shutil.which("docker") or shutil.which("podman")
    if command is None:
        raise BadInput("no command docker or podman on the PATH; `quantgate doctor` says how to get one")
    return command


def image_digest(image: str) -> str | None:
    """The digest that the registry knows an image by, else its id; None when the engine has no such image.

    Raises:
        EngineError: the engine does not answer.
    """
    from docker.errors import NotFound

    with _client() as client:
        try:
            found = client.images.get(image)
        except NotFound:
            return None
        digests = found.attrs.get("RepoDigests") or []
        name = image.rsplit("@", 1)[0]
        name = name.rsplit(":", 1)[0] if ":" in name.rsplit("/", 1)[-1] else name
        mine = [digest for digest in digests if f"/{digest}".rsplit("@", 1)[0].endswith(f"/{name}")]
        return str((mine or digests or [found.id])[0])


def remove_leftovers(label: str) -> int:
    """Remove the containers whose label is this folder, or a folder inside it; running or not, and no others.

    Returns how many there were. Raises EngineError: the engine does not answer, or cannot remove one.
    """
    from docker.errors import APIError

    if not label.strip("/"):
        raise ValueError(f"label {label!r} is no folder of a run")
    removed = 0
    with _client() as client:
        # Not client.containers.list: it asks the engine about each once more, and one may be gone by then.
        for found in client.api.containers(all=True, filters={"label": LABEL}):
            value = (found.get("Labels") or {}).get(LABEL, "")
            if value != label and not value.startswith(label.rstrip("/") + "/"):
                continue
            removed += 1
            try:
                client.api.remove_container(found["Id"], force=True, v=True)
            except APIError as error:
                if error.status_code not in (404, 409):  # gone by itself (--rm), or going
                    raise
    return removed


def cleanup_command(label: str) -> list[str]:
    """The command that removes the containers of a folder, for a guard."""
    return [sys.executable, "-m", "harness.serving.containers", label]


@contextmanager
def _client() -> Iterator[Any]:
    """A client of the Docker SDK for a few questions. Everything that goes wrong meanwhile becomes an EngineError."""
    try:
        import docker
        from docker.errors import DockerException
        from requests import RequestException
    except ImportError as error:
        raise EngineError(f"the package {error.name} is not installed: run `make`") from None
    client = None
    try:
        client = docker.from_env(timeout=SECONDS)
        yield client
    except (DockerException, RequestException, OSError, ValueError) as error:  # ValueError: an address is none
        raise EngineError(f"{_address()}: {_line(error)}") from None
    finally:
        if client is not None:
            with suppress(Exception):
                client.close()


def _address() -> str:
    return os.environ.get("DOCKER_HOST") or "the default socket"


def _line(error: Exception) -> str:
    """What an error says, in one line: the engine's own words, or why there were none (no such file, refused)."""
    cause: BaseException | None = error
    while cause and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__cause__ or cause.__context__
    text = str(getattr(error, "explanation", None) or (cause.strerror if isinstance(cause, OSError) else error))
    return quoted(text, 300)


def main(arguments: list[str]) -> int:
    """Remove the containers of a folder. Returns the exit status."""
    if len(arguments) != 1:
        print("python -m harness.serving.containers FOLDER", file=sys.stderr)
        return 3
    try:
        removed = remove_leftovers(arguments[0])
    except (EngineError, ValueError) as error:
        print(f"containers of {arguments[0]}: {error}", file=sys.stderr)
        return 4
    if removed:
        print(f"removed {removed} containers of {arguments[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

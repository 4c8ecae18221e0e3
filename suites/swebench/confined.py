"""Runs swebench's own module unchanged, with limits on the containers that it makes.

    python -m suites.swebench.confined LIMITS_JSON LABEL -- MODULE ARGUMENTS...

swebench 5 creates its containers through the Docker SDK with no limit at all: they have the engine's network, all of
its memory, and CAP_SYS_ADMIN besides, and what runs in them is a model's code. It has no option for any of that, and
nothing of swebench is rewritten here. So the one method through which containers are made is wrapped, in this process
alone: it adds what harness/serving/containers.py says. The module then runs as `python -m MODULE` would, with the same
exit status and the same signals.

A call that the wrapper does not know (another argument, another way to make containers) is refused, and this process
ends with 4: better no result than one from a container without limits. So is a container that did not get its limits.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.contract.errors import BadInput, RunFailed
from harness.contract.validation import validate
from harness.serving.containers import LABEL, ContainerLimits, create_options

KNOWN = {"name", "user", "detach", "cap_add"}
"""What swebench 5 gives `containers.create` besides image and command."""
CAPABILITIES = ["SYS_ADMIN"]


class UnconfinedError(Exception):
    """A container would have been made, or was made, without its limits."""


def confined_arguments(limits: ContainerLimits, label: str) -> list[str]:
    """The arguments of this module before `--`."""
    return [limits.model_dump_json(), label]


def main(arguments: list[str]) -> None:
    """Run the module.

    Raises:
        SystemExit: what the module ended with; 4 when a container was refused. BadInput: bad arguments.
    """
    limits, label, module, rest = _parsed(arguments)
    # swebench loads a .env file that it looks for above its own files, or here: neither is meant for it.
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    refused = confine(limits, label)
    sys.argv = [module, *rest]
    try:
        with _docker_on_path():
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:  # swebench turns every error into one of the instance: here it is said again, and the status tells
        if refused:
            print(f"quantgate: {refused[0]}", file=sys.stderr)
            raise SystemExit(RunFailed.exit_code)


def _parsed(arguments: list[str]) -> tuple[ContainerLimits, str, str, list[str]]:
    try:
        split = arguments.index("--")
        limits_json, label = arguments[:split]
        module, *rest = arguments[split + 1 :]
        limits = json.loads(limits_json)
    except ValueError:
        raise BadInput("python -m suites.swebench.confined LIMITS_JSON LABEL -- MODULE ARGUMENTS...") from None
    return validate(ContainerLimits, limits, "limits of containers"), label, module, rest


def confine(limits: ContainerLimits, label: str) -> list[str]:
    """Wrap the Docker SDK of this process. Returns a list that takes a line for each container that was refused.

    Raises:
        UnconfinedError: this Docker SDK is not the one that is known.
    """
    from docker.api.client import APIClient
    from docker.models.containers import ContainerCollection

    create, send = ContainerCollection.create, APIClient.create_container_from_config
    for method, shape in ((create, "self image command kwargs"), (send, "self config name platform")):
        if list(inspect.signature(method).parameters) != shape.split():
            raise UnconfinedError(f"the Docker SDK's {method.__qualname__} is not the one that is known; run `make`")
    refused: list[str] = []

    @functools.wraps(create)
    def confined_create(self: Any, image: Any, command: Any = None, **kwargs: Any) -> Any:
        capabilities = kwargs.get("cap_add") or []
        if not kwargs.keys() <= KNOWN or any(name not in CAPABILITIES for name in capabilities):
            raise _refusal(refused, f"a container was to be made with {_shown(kwargs)}, which is not known here")
        if not limits.sys_admin:
            kwargs.pop("cap_add", None)
        container = create(self, image, command, **kwargs, **create_options(limits, label))
        lacking = unmet(container.attrs, limits, label)
        if lacking:
            container.remove(force=True)
            raise _refusal(refused, f"the engine made a container without its {', '.join(lacking)}")
        return container

    @functools.wraps(send)
    def confined_send(self: Any, config: Any, *arguments: Any, **kwargs: Any) -> Any:
        if (config.get("Labels") or {}).get(LABEL) != label:  # made in another way than the one above
            raise _refusal(refused, "a container was to be made in a way that is not known here")
        return send(self, config, *arguments, **kwargs)

    ContainerCollection.create, APIClient.create_container_from_config = confined_create, confined_send
    return refused


def unmet(attrs: Mapping[str, Any], limits: ContainerLimits, label: str) -> list[str]:
    """What a container lacks of its label and limits, by what the engine says of it (`docker inspect`)."""
    host = attrs.get("HostConfig") or {}
    wanted = create_options(limits, label)
    found = {
        "labels": {LABEL: ((attrs.get("Config") or {}).get("Labels") or {}).get(LABEL)},
        "network_mode": host.get("NetworkMode"),
        "mem_limit": host.get("Memory"),
        "pids_limit": host.get("PidsLimit"),
        "nano_cpus": host.get("NanoCpus"),
    }  # no memswap_limit: where swap cannot be limited, memory still is
    return [key for key in found if key in wanted and found[key] != wanted[key]]


def _refusal(refused: list[str], line: str) -> UnconfinedError:
    refused.append(line)
    return UnconfinedError(line)


def _shown(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r:.60}" for key, value in kwargs.items() if key not in KNOWN or key == "cap_add")


@contextmanager
def _docker_on_path() -> Iterator[None]:
    """swebench ends its containers with the command `docker`; where only podman is there, it goes by that name too."""
    podman = shutil.which("podman")
    if podman is None or shutil.which("docker"):
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "docker").symlink_to(podman)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        yield


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        print(f"quantgate: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

"""A real engine, where one answers, and an image of a few MB: programs of this machine with the libraries they load."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

PROGRAMS = ("bash", "sh", "cat", "ls", "sleep", "tail", "mkdir", "git")


@cache
def no_engine() -> str:
    """Why tests with a real engine cannot run; empty when they can."""
    from harness.contract.errors import BadInput
    from harness.serving.containers import cli, require_engine

    lacking = [program for program in (*PROGRAMS, "ldd") if shutil.which(program) is None]
    try:
        require_engine()
        cli()
    except BadInput as error:
        return str(error)
    return f"{', '.join(lacking)} not on the PATH" if lacking else ""


@cache
def tiny_image() -> str:
    """Tag of the image in the engine: a root user, /testbed with value.txt ("old"), and programs. Made when missing."""
    import docker
    from docker.errors import ImageNotFound

    files = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "testbed/value.txt": b"old\n"}
    for program in PROGRAMS:
        path = str(shutil.which(program))
        loaded = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        files[f"usr/bin/{program}"] = Path(path).read_bytes()
        for name in re.findall(r"(/\S+) \(0x", loaded):
            files[name.lstrip("/")] = Path(name).read_bytes()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in sorted(files.items()):
            _add(tar, name, data)
        _add(tar, "bin", b"", points_to="usr/bin")
    root = content.getvalue()
    tag = f"quantgate-test-tiny:{hashlib.sha256(root).hexdigest()[:12]}"
    client = docker.from_env()
    try:
        client.images.get(tag)
    except ImageNotFound:
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            # SIGKILL: tail, the first process, ignores SIGTERM, and ending it would take 15 s
            _add(tar, "Dockerfile", b"FROM scratch\nADD root.tar /\nENV PATH=/usr/bin:/bin\nSTOPSIGNAL SIGKILL\n")
            _add(tar, "root.tar", root)
        client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag=tag, rm=True)
    finally:
        client.close()
    return tag


def _add(tar: tarfile.TarFile, name: str, data: bytes, points_to: str = "") -> None:
    entry = tarfile.TarInfo(name)
    if points_to:
        entry.type, entry.linkname = tarfile.SYMTYPE, points_to
    entry.size, entry.mode = len(data), 0o755
    tar.addfile(entry, io.BytesIO(data))

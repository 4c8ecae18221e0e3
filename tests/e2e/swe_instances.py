"""Small real instances in the format of SWE-bench, with container images built here and without a network inside them.

A recipe (swe_recipes/*.toml) names a source package, one right piece of its code and the wrong one that we put in its
place: the issue to be fixed. The gold patch takes that back, and a test of ours fails without it. The image has the
broken source in /testbed as a git repository and a virtual environment that /root/.bashrc activates. Which tests fail
before and pass after was measured with the official grader; test_swe_instances.py measures it again.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import io
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "swe_recipes"
DEBIAN = "bookworm"
PACKAGES = (
    "git patch python3 python3-click python3-itsdangerous python3-jinja2 python3-pytest python3-sqlparse python3-tz "
    "python3-werkzeug"
)
"""The base image, shared by all instances: what they run on, of the versions that Debian has."""

# localhost/ so that no engine asks a registry for a missing image. The sources are pinned, so
# with a fixed author and time the commit has the same name everywhere, which the build checks.
REPOSITORY = "localhost/quantgate-test"
DOCKERFILE = """\
FROM {base}
RUN python3 -m venv --without-pip --system-site-packages /opt/venv \\
 && echo /testbed/{python_path} >"$(echo /opt/venv/lib/python3*/site-packages)/testbed.pth" \\
 && echo '. /opt/venv/bin/activate' >>/root/.bashrc
ADD {source} /
COPY broken /
WORKDIR /testbed
RUN mv /{folder}/* . && mv /broken {file} && chown -R root:root . \\
 && export GIT_AUTHOR_DATE="2020-01-01T00:00:00Z" GIT_COMMITTER_DATE="2020-01-01T00:00:00Z" \\
 && git init -q && git config gc.auto 0 \\
 && git config user.name quantgate && git config user.email quantgate@localhost \\
 && git add -A && git commit -qm {requirement} && printf '__pycache__/\\npatch.txt\\n' >>.git/info/exclude \\
 && git rev-parse HEAD && test "$(git rev-parse HEAD)" = {base_commit}
STOPSIGNAL SIGKILL
"""

EVAL_SCRIPT = """\
#!/bin/bash
set -uxo pipefail
. /opt/venv/bin/activate
cd /testbed
git checkout {base_commit} -- {test_file}
rm -f {added_test_file}
git apply -v - <<'EOF_ADDED_TEST'
{test_patch}EOF_ADDED_TEST
: '>>>>> Start Test Output'
{test_command}
: '>>>>> End Test Output'
rm -f {added_test_file}
git checkout {base_commit} -- {test_file}
"""


def missing() -> str | None:
    """Why no instance can run here, in one line; None when a container engine answers and images can be had."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=20)
        client.ping()
    except DockerException:
        return "no container engine answers (scripts/engine.sh start DIR starts one; DOCKER_HOST names it)"
    if not client.images.list(_base_image()) and shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed (apt-get install mmdebstrap), so no image can be made"
    return None


def instances(cache: Path, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """The rows of all recipes, in the order of their names; images that the engine lacks are built.

    Source packages are kept in the folder `cache`. Raises what docker, pip or mmdebstrap say when an image cannot be
    made, and ValueError when a source package is not the one that was measured.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:  # tests run side by side: one builds for all
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _instances(cache, say)


def _instances(cache: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    import docker

    client = docker.from_env(timeout=600)
    rows = []
    for path in sorted(RECIPES.glob("*.toml")):
        recipe = tomllib.loads(path.read_text("utf-8"))
        source = _source(recipe, cache)
        right, broken = _versions(recipe, source)
        dockerfile = DOCKERFILE.format(base=_base_image(), folder=_folder(source), **recipe)
        made_of = f"{dockerfile}\n{recipe['sha256']}\n{broken}"
        image = f"{REPOSITORY}/{path.stem}:{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
        if not client.images.list(image):
            _build_base(client, say)
            say(f"building {image}")
            context = _context({"Dockerfile": dockerfile.encode(), "broken": broken.encode()}, source)
            client.images.build(
                fileobj=context, custom_context=True, tag=image, network_mode="none", rm=True, forcerm=True
            )
        rows.append(_row(recipe, image, patch=_diff(recipe["file"], broken, right)))
    return rows


def scripted_fix(row: dict[str, Any]) -> list[str]:
    """Shell commands that fix an instance and submit the fix, as mini-swe-agent's swebench.yaml asks for it.

    `python` is there only in the activated environment, so nothing is submitted where that did not work.
    """
    patch = row["patch"]
    file = shlex.quote(next(line[6:] for line in patch.splitlines() if line.startswith("+++ b/")))
    return [
        f"git apply - <<'EOF_FIX'\n{patch}EOF_FIX",
        f"python -m py_compile {file} && git diff -- {file} > patch.txt",
        "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt",
    ]


def _row(recipe: dict[str, Any], image: str, patch: str) -> dict[str, Any]:
    added = recipe["added_test"].lstrip("\n")
    test_patch = _diff(recipe["added_test_file"], "", added)
    project, version = recipe["requirement"].split("==")
    return {
        "instance_id": recipe["instance_id"],
        "repo": f"quantgate/{project.lower()}",
        "version": version,
        "base_commit": recipe["base_commit"],
        "image": image,
        "problem_statement": recipe["problem_statement"].strip(),
        "patch": patch,
        "test_patch": test_patch,
        "eval_script": EVAL_SCRIPT.format(test_patch=test_patch, **recipe),
        "eval_type": "pass_and_fail",
        "log_parser": recipe["log_parser"],
        "FAIL_TO_PASS": recipe["FAIL_TO_PASS"],
        "PASS_TO_PASS": recipe["PASS_TO_PASS"],
    }


def _base_image() -> str:
    return f"{REPOSITORY}/base:{hashlib.sha256(f'{DEBIAN} {PACKAGES}'.encode()).hexdigest()[:16]}"


def _build_base(client: Any, say: Callable[[str], None]) -> None:
    """Make the base image of Debian packages, unless the engine has it."""
    base = _base_image()
    if client.images.list(base):
        return
    say(f"building {base}: {DEBIAN} with {PACKAGES}")
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "base.tar"
        command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES.replace(' ', ',')}", DEBIAN, str(tar)]
        subprocess.run(command, check=True)
        repository, tag = base.rsplit(":", 1)
        client.api.import_image_from_file(str(tar), repository=repository, tag=tag)


def _source(recipe: dict[str, Any], cache: Path) -> Path:
    """The source package, downloaded unless it is there."""
    path = cache / str(recipe["source"])
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:  # moved when whole
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:"]
            # pip reads a source package's metadata by its own build; setuptools is enough for these.
            subprocess.run([*command, "--no-build-isolation", "-d", folder, recipe["requirement"]], check=True)
            (Path(folder) / recipe["source"]).rename(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != recipe["sha256"]:
        raise ValueError(f"{path}: sha256 is {found}, expected {recipe['sha256']}; delete it to fetch it again")
    return path


def _folder(source: Path) -> str:
    return source.name.removesuffix(".tar.gz")


def _versions(recipe: dict[str, Any], source: Path) -> tuple[str, str]:
    """The file with the issue: as it was released, and broken."""
    with tarfile.open(source) as archive:
        member = archive.extractfile(f"{_folder(source)}/{recipe['file']}")
        if member is None:
            raise ValueError(f"{source}: {recipe['file']} is no file")
        released = member.read().decode()
    if released.count(recipe["right"]) != 1:
        raise ValueError(f"{recipe['file']}: {recipe['right']!r} should be in it once")
    return released, released.replace(recipe["right"], recipe["wrong"])


def _diff(file: str, before: str, after: str) -> str:
    """A patch for `git apply`; an empty `before` makes a new file."""
    old = f"a/{file}" if before else "/dev/null"
    mode = "" if before else "new file mode 100644\n"
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), old, f"b/{file}")
    return f"diff --git a/{file} b/{file}\n{mode}{''.join(lines)}"


def _context(files: dict[str, bytes], source: Path) -> io.BytesIO:
    """What the engine builds from, as a tar file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        archive.add(source, arcname=source.name)
    stream.seek(0)
    return stream

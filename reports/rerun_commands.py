"""Commands that repeat a run, or a part of it, as they can be pasted into a shell in the run's folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from harness.contract.model_facts import ModelFacts
from harness.contract.samples import ROLES
from harness.contract.secrets import HIDDEN, hide_secret, hide_secrets
from harness.runs.manifest import Manifest, ServerFacts
from reports.known_suites import known_suite
from reports.text import one_line, visible

OUT, POLICY, RESUME, BASELINE = "--out", "--policy", "--resume", "--baseline"
DROPPED = (OUT, POLICY, BASELINE)
"""Options with a value that say where and by what a run was made, and would be wrong for the next one."""

DATA = (
    "export QUANTGATE_DATA=FOLDER first if questions or texts came from files there: without it the hub's, or this "
    "project's own, are asked, and the items' hashes below differ"
)


@dataclass(frozen=True)
class Command:
    """One line for a shell."""

    title: str
    words: list[str]
    """Each quoted for a shell."""
    remark: str = ""
    """What must be done before it runs as it stands."""

    @property
    def text(self) -> str:
        return " ".join(self.words)


def repeat(manifest: Manifest) -> list[Command]:
    """The whole run again, each server by itself, the verdict again, the report again."""
    found = [_gate(manifest)] if manifest.command[1:2] == ["gate"] else []
    for role in ROLES:
        model = manifest.models.get(role)
        if model and manifest.servers.get(role, ServerFacts(url="")).command:
            words = ["quantgate", "serve", _name(model), "--role", role, POLICY, "policy.yaml"]
            found.append(_command(f"Serve the {role}", words))
    found.append(_command("Judge the stored answers again", ["quantgate", "judge", "."]))
    found.append(_command("Write this report again", ["quantgate", "report", "."]))
    return found


def started(server: ServerFacts) -> tuple[list[str], str]:
    """(words, remark) of the line that a server was started with: its environment, then its command.

    A password or token in the environment is left to the shell that the line is pasted into.
    """
    named = [(name, hide_secret(name, value)) for name, value in sorted(server.environment.items())]
    secrets = [name for name, value in named if value == HIDDEN]
    words = [f"{name}={value}" for name, value in named if value != HIDDEN]
    line = hide_secrets(server.command)
    remarks = [f"set {', '.join(secrets)} first" if secrets else "", _gap(line)]
    return [*(["env", *words] if words else []), *line], "; ".join(filter(None, remarks))


def _gate(manifest: Manifest) -> Command:
    words = [*_kept(manifest.command[2:]), POLICY, "policy.yaml", OUT, f"../{one_line(manifest.run_id, 120)}-again"]
    places = {model.name: _name(model) for model in manifest.models.values()}
    line = ["quantgate", "gate", *hide_secrets([places.get(word, word) for word in words])]
    if manifest.baseline:
        line += [BASELINE, manifest.baseline.path]
    made = _command("The whole run", line)
    asked = [known_suite(name.partition("/")[0]) for name in manifest.planned]
    if not any(suite.reads_files for suite in asked):
        return made
    return replace(made, remark="; ".join(filter(None, [made.remark, DATA])))


def _kept(words: Iterable[str]) -> Iterator[str]:
    """The words of a gate command without --resume and without DROPPED and their values."""
    rest = iter(words)
    for word in rest:
        if word in DROPPED:
            next(rest, None)
        elif word != RESUME and not word.startswith(tuple(f"{name}=" for name in DROPPED)):
            yield word


def _name(model: ModelFacts) -> str:
    """What finds the model from any folder: its path where its name is that of a folder, else its name."""
    is_folder = PurePosixPath(model.path).is_absolute() and model.path.endswith(f"/{model.name.strip('./')}")
    made_here = model.quantization and " " in model.name  # "MODEL RECIPE": a checkpoint that the run itself made
    return model.path if is_folder or made_here else model.name


def _command(title: str, words: list[str]) -> Command:
    return Command(title, [shlex.quote(visible(word)) for word in words], _gap(words))


def _gap(words: list[str]) -> str:
    return "put in what is (hidden) first" if any(HIDDEN in word for word in words) else ""

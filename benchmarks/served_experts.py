"""Does stock vLLM serve int4 experts as they were meant? One command for a machine with a GPU.

    python -m benchmarks.served_experts [--recipe RECIPE] [--device cpu] [--work FOLDER]

A small Qwen3-MoE of random weights is made with a tokenizer of bytes, quantized by `w4a16-fast` (or another recipe for
int4), and turned back into bf16. vLLM serves all three and gives the whole distribution (257 tokens) at each
position of fixed prompts. int4 against its own bf16 differs by the rounding of kernels; against the original by what 4
bits cost. The first has to be a fifth of the second at most. Prints one JSON line; the exit status is 0 if that is so.

`--device` is where the model is quantized, in a process of its own: vLLM starts faster where no GPU was used before. On
a CPU without AMX vLLM refuses int4 experts, and the line says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from quantizers.checkpoint import one_line
from quantizers.dequantize import dequantize
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, load_recipe

SIZE: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 512, "intermediate_size": 512, "moe_intermediate_size": 256,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "num_experts": 16,
    "num_experts_per_tok": 4, "norm_topk_prob": True, "max_position_embeddings": 1024, "bos_token_id": 256,
    "eos_token_id": 256, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
PROMPTS, LENGTH = 16, 128
MODELS = ("original", "int4", "plain")
SHARE = 0.2
"""Of the KL that 4 bits cost: how much the rounding of kernels may be."""


def random_model(family: str, **settings: Any) -> Any:
    """A model (of `Qwen3Moe`, `Qwen2`) in bf16 whose states keep their size from layer to layer, logits spread by 3."""
    import transformers

    torch.manual_seed(1)
    model: Any = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**settings))
    model.to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                spread = 1.0 if "embed" in name else (3.0 if "lm_head" in name else 1.0) / parameter.shape[-1] ** 0.5
                parameter.normal_(0, spread)
    return model


def make_models(work: Path, recipe_name: str, device: str | None) -> None:
    """The folders `MODELS` in `work`: the original, it in int4, and that in bf16 again."""
    original, int4, plain = (work / name for name in MODELS)
    random_model("Qwen3Moe", **SIZE).save_pretrained(original)
    save_tokenizer(original)
    recipe = load_recipe(recipe_name).model_copy(update={"calibration": Calibration(samples=16, length=128)})
    quantize(original, recipe, int4, device=device)
    dequantize(int4, plain)


def save_tokenizer(folder: Path) -> None:
    """Each byte is a token, and one more ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {"<end>": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)


def served(folder: Path, settings: Mapping[str, Any] = MappingProxyType({})) -> torch.Tensor:
    """Log-probabilities [P, L - 1, V] that vLLM gives for the tokens after each of the prompts' first L - 1; `settings`
    are vLLM's own."""
    from vllm import LLM, SamplingParams

    llm: Any = LLM(
        str(folder), dtype="bfloat16", enforce_eager=True, max_model_len=2 * LENGTH, max_logprobs=-1, seed=0,
        kv_cache_memory_bytes=256 << 20, gpu_memory_utilization=0.3,  # the one before may not be gone yet
        **settings,
    )  # fmt: skip
    prompts = torch.randint(0, 256, (PROMPTS, LENGTH), generator=torch.Generator().manual_seed(2)).tolist()
    asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=-1)
    answers = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False)
    found = torch.full((PROMPTS, LENGTH - 1, SIZE["vocab_size"]), float("-inf"))
    for row, answer in zip(found, answers, strict=True):
        for place, logprobs in zip(row, answer.prompt_logprobs[1:], strict=True):
            for token, value in logprobs.items():
                if token < len(place):  # vLLM pads the vocabulary
                    place[token] = value.logprob
    del llm
    gc.collect()
    return found


def divergence(reference: torch.Tensor, candidate: torch.Tensor) -> dict[str, float]:
    """KL(reference || candidate) in nats: its mean and largest, and the share of positions with another first token."""
    kl = (reference.double().exp() * (reference.double() - candidate.double())).sum(-1)
    flips = reference.argmax(-1) != candidate.argmax(-1)
    return {"mean": float(kl.mean()), "max": float(kl.max()), "flips": float(flips.double().mean())}


def in_own_process(make: Callable[..., Any], *given: Any) -> Any:
    """Call a function where it takes no GPU into this process, and leaves no threads in it that a fork would lose: vLLM
    forks its engine, which then waits for them forever."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(make, *given).result()


def served_apart(folder: Path, settings: Mapping[str, Any] = MappingProxyType({})) -> torch.Tensor:
    """`served` in a process of its own."""
    return torch.from_numpy(in_own_process(_served_array, folder, dict(settings)))


def _served_array(folder: Path, settings: Mapping[str, Any]) -> Any:
    return served(folder, settings).numpy()


def check(
    work: Path, recipe: str, device: str | None, ask: Callable[[Path], torch.Tensor] = served_apart
) -> dict[str, Any]:
    """Make the three models in `work`, have them served, and say how far they are apart."""
    began = time.monotonic()
    original, int4, plain = (work / name for name in MODELS)
    in_own_process(make_models, work, recipe, device)
    found: dict[str, Any] = {"recipe": recipe, "made in": round(time.monotonic() - began, 1), "ok": False}
    with ThreadPoolExecutor(len(MODELS)) as pool:  # most of a server's start is waiting
        asked = {folder: pool.submit(ask, folder) for folder in (original, int4, plain)}
    bf16 = asked[plain].result()
    found["4 bits cost"] = divergence(asked[original].result(), bf16)
    try:
        served_int4 = asked[int4].result()
    except Exception as error:  # whatever a server can refuse
        return found | {"refused": one_line(error), "seconds": round(time.monotonic() - began, 1)}
    found["kernels cost"] = divergence(bf16, served_int4)
    found["ok"] = found["kernels cost"]["mean"] <= SHARE * found["4 bits cost"]["mean"]
    return found | {"seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="an empty folder for the models; default: one that is removed again")
    parser.add_argument("--recipe", default="w4a16-fast", help="its name or a YAML file; its calibration is ours")
    parser.add_argument("--device", help="where the model is quantized; default: a GPU if there is one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = check(given.work or Path(scratch), given.recipe, given.device)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(json.dumps({"vllm": metadata.version("vllm"), "gpu": gpu, **found}))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())

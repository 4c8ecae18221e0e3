"""Mixtures of experts: unfolded they are the same model, and each expert is quantized on all tokens."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import folder_bytes
from tiny_moe import KINDS, edit, save_tiny_moe

from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.experts import Experts, every_token
from quantizers.modeling import build, fill
from quantizers.pipeline import USAGE_FILE, quantize
from quantizers.plan import make_plan
from quantizers.recipe import Recipe
from quantizers.writing import tensor_entry, write_shard

TOKENS = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def moe_recipe(tiny_recipe: Recipe) -> Recipe:
    return tiny_recipe.model_copy(update={"name": "moe", "tune": "none"})


@pytest.fixture(scope="session")
def qwen_moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_moe("qwen3_moe", tmp_path_factory.mktemp("moe") / "qwen3-moe")


def log_probabilities(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(TOKENS).logits.log_softmax(-1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k == "mixtral" else pytest.mark.slow) for k in KINDS])
def test_unfolded_experts_are_the_same_model_and_every_token_changes_nothing(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_moe(kind, tmp_path / kind)
    checkpoint = open_checkpoint(folder)
    architecture = build(checkpoint)
    fill(architecture.model, architecture.model, "", checkpoint, device="cpu", dtype=torch.float32)
    expected = log_probabilities(folder)
    with torch.no_grad():
        assert torch.allclose(architecture.model(TOKENS).logits.log_softmax(-1), expected, atol=1e-5)
        with every_token(architecture.layers):
            found = architecture.model(TOKENS).logits.log_softmax(-1)
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_is_quantized_and_read_back(kind: str, tmp_path: Path, moe_recipe: Recipe) -> None:
    folder = save_tiny_moe(kind, tmp_path / kind)
    made = quantize(folder, moe_recipe, tmp_path / "made", device="cpu")
    plain = dequantize(made, tmp_path / "plain")
    reference, found = log_probabilities(folder), log_probabilities(plain)
    assert 0 < float((reference.exp() * (reference - found)).sum(-1).mean()) < 0.1
    before, after = (open_checkpoint(path).tensors for path in (folder, plain))
    assert {n: i.shape for n, i in before.items()} == {n: i.shape for n, i in after.items()}
    stored = open_checkpoint(made).tensors
    experts = [name for name in before if ".experts." in name]
    assert experts and all(f"{name}_packed" in stored and name not in stored for name in experts)
    routers = [name for name in before if re.search(r"\.gate\.weight$", name)]
    ignore = json.loads((made / "config.json").read_text())["quantization_config"]["ignore"]
    assert routers and all(name.removesuffix(".weight") in ignore for name in routers)
    for name in routers:
        assert torch.equal(read_tensor(before[name]), read_tensor(after[name]))


@pytest.mark.slow
def test_experts_share_one_hessian_of_all_tokens(qwen_moe: Path, tmp_path: Path, moe_recipe: Recipe) -> None:
    """Oracle: the layer run by hand, every expert on every token, and GPTQ of each matrix on its own."""
    from quantizers.calibration import calibration_tokens, own_tokenizer
    from quantizers.gptq import GPTQArgs, gptq

    others = (r"re:.*\.layers\.1\..*", r"re:.*self_attn.*")
    recipe = moe_recipe.model_copy(update={"ignore": (*moe_recipe.ignore, *others)})
    made = quantize(qwen_moe, recipe, tmp_path / "made", device="cpu")
    plain = open_checkpoint(dequantize(made, tmp_path / "plain")).tensors
    checkpoint = open_checkpoint(qwen_moe)
    model: Any = build(checkpoint).model
    fill(model, model, "", checkpoint, device="cpu", dtype=torch.float32)
    tokens = calibration_tokens(own_tokenizer(qwen_moe), recipe.calibration)
    seen: list[torch.Tensor] = []
    block = model.model.layers[0].mlp
    block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].reshape(-1, inputs[0].shape[-1])))
    with torch.no_grad():
        model(tokens)
        rows = torch.cat(seen)
        arguments = GPTQArgs(64, 4, recipe.damping_of("int4"))
        for number, expert in enumerate(block.experts):
            hidden = {}
            for name in ("gate_proj", "up_proj"):
                codes, scales = gptq(expert.get_submodule(name).weight, 2 * rows.T @ rows, arguments)
                hidden[name] = (codes * scales.float().repeat_interleave(64, 1)).to(torch.bfloat16)
            entering = torch.nn.functional.silu(rows @ hidden["gate_proj"].float().T) * (
                rows @ hidden["up_proj"].float().T
            )
            codes, scales = gptq(expert.down_proj.weight, 2 * entering.T @ entering, arguments)
            hidden["down_proj"] = (codes * scales.float().repeat_interleave(64, 1)).to(torch.bfloat16)
            for name, weight in hidden.items():
                found = read_tensor(plain[f"model.layers.0.mlp.experts.{number}.{name}.weight"])
                assert float((found == weight).float().mean()) > 0.98, (number, name)


@pytest.mark.slow
def test_tokens_of_each_expert_are_reported_and_an_unseen_one_is_named(tmp_path: Path, moe_recipe: Recipe) -> None:
    folder = save_tiny_moe("mixtral", tmp_path / "model", num_hidden_layers=1)

    def collapse(weights: dict[str, torch.Tensor], _: object) -> None:
        router = weights["model.layers.0.block_sparse_moe.gate.weight"]
        router[3] = -router[0]
        router[2] = router[0] * 0.999  # always just behind or just before the first, and so never with the fourth
        router[1] = router[0] * 1.001

    edit(folder, collapse)
    made = quantize(folder, moe_recipe, tmp_path / "made", device="cpu")
    (counts,) = json.loads((made / USAGE_FILE).read_text()).values()
    tokens = moe_recipe.calibration.samples * moe_recipe.calibration.length
    assert sum(counts) == 2 * tokens and counts.index(min(counts)) in (2, 0)
    card = (made / "README.md").read_text()
    assert "| experts | 4 in 1 layers, each calibrated on all tokens" in card
    unseen = [number for number, count in enumerate(counts) if not count]
    assert all(f"`model.layers.0.block_sparse_moe.experts.{number}`" in card for number in unseen)
    assert unseen, counts
    assert "| w1 of experts | int4 |" in card


@pytest.mark.slow
def test_an_interrupted_mixture_goes_on_to_the_same_bytes(qwen_moe: Path, tmp_path: Path, moe_recipe: Recipe) -> None:
    def killed(stage: str, done: int, total: int) -> None:
        if stage == "layer" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(qwen_moe, moe_recipe, tmp_path / "a", device="cpu", progress=killed)
    quantize(qwen_moe, moe_recipe, tmp_path / "a", device="cpu")
    assert folder_bytes(tmp_path / "a") == folder_bytes(quantize(qwen_moe, moe_recipe, tmp_path / "b", device="cpu"))


def fused(folder: Path, name: str) -> Path:
    """The same model, its experts in one tensor for gate and up and one for down."""
    checkpoint = open_checkpoint(folder)
    weights = {info.name: read_tensor(info) for info in checkpoint.tensors.values()}
    out = folder.parent / name
    out.mkdir()
    for layer in range(2):
        head = f"model.layers.{layer}.mlp.experts"
        own = [[weights.pop(f"{head}.{e}.{p}_proj.weight") for p in ("gate", "up", "down")] for e in range(4)]
        weights[f"{head}.gate_up_proj"] = torch.stack([torch.cat([gate, up]) for gate, up, _ in own])
        weights[f"{head}.down_proj"] = torch.stack([down for _, _, down in own])
    write_shard(out / "model.safetensors", [tensor_entry(n, tensor) for n, tensor in weights.items()])
    for file in folder.glob("*.json"):
        (out / file.name).write_bytes(file.read_bytes())
    return out


def test_fused_experts_are_read_as_one_matrix_each(qwen_moe: Path) -> None:
    one, other = open_checkpoint(qwen_moe).tensors, open_checkpoint(fused(qwen_moe, "fused")).tensors
    assert one.keys() == other.keys()
    for name, info in one.items():
        assert torch.equal(read_tensor(info), read_tensor(other[name])), name


EXPERT = "model.layers.1.mlp.experts.2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w, c: w.pop(f"{EXPERT}.up_proj.weight"), rf"tensor {EXPERT}.up_proj.weight is missing in"),
        (
            lambda w, c: w.update({f"{EXPERT}.up_proj.weight": torch.zeros(32, 64)}),
            rf"tensor {EXPERT}.up_proj.weight is \[32, 64\] but config.json asks for \[64, 64\]",
        ),
        (lambda w, c: c.update(num_experts=9), r"config.json says num_experts 9, but .* of 4 experts: experts.4.\*"),
        (
            lambda w, c: [w.pop(n) for n in list(w) if "layers.1.mlp.experts.3" in n],
            "tensor model.layers.1.mlp.experts.3.gate_proj.weight is missing",
        ),
        (
            lambda w, c: [w.update({n.replace("_proj", "_x"): w.pop(n)}) for n in list(w) if ".mlp.experts." in n],
            r"model.layers.0.mlp.experts.0 has down_x, gate_x, up_x in .*: experts are gate_proj, up_proj",
        ),
    ],
    ids=["a matrix", "a shape", "a claim", "an expert", "names"],
)
def test_experts_that_do_not_fit_are_named(qwen_moe: Path, tmp_path: Path, change: Any, words: str) -> None:
    shutil.copytree(qwen_moe, tmp_path / "broken")
    broken = edit(tmp_path / "broken", change)
    with pytest.raises(QuantizeError, match=words):
        build(open_checkpoint(broken))


def test_experts_of_another_kind_are_refused_by_name(qwen_moe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

    monkeypatch.setattr(Qwen3MoeExperts, "forward", lambda self, hidden, index, weights: hidden)
    with pytest.raises(QuantizeError, match="Qwen3MoeExperts computes something else than down"):
        build(open_checkpoint(qwen_moe))

    def fail(*_: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(Qwen3MoeExperts, "forward", fail)
    with pytest.raises(QuantizeError, match=r"Qwen3MoeExperts cannot be run alone \(no kernel\)"):
        build(open_checkpoint(qwen_moe))


def test_a_plan_holds_experts_and_keeps_routers(qwen_moe: Path, moe_recipe: Recipe) -> None:
    checkpoint = open_checkpoint(qwen_moe)
    architecture = build(checkpoint)
    plan = make_plan(checkpoint, architecture, moe_recipe)
    assert len(plan.schemes) == 2 * (4 + 4 * 3)
    assert {"lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"} == set(plan.ignore)
    assert isinstance(architecture.layers[0].get_submodule("mlp.experts"), Experts)

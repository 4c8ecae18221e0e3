"""Damaged mixtures and draft heads, and the good models that they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import save_tiny_llama

from harness.checkpoint.models import describe
from harness.prove import drafts, experts, standins
from harness.prove.bench import bench_of, own_bench
from harness.prove.catalogue import BY_NAME
from harness.prove.entries import NotApplicable
from harness.prove.rounding import is_linear, rounded
from harness.prove.upcycling import Shape, entering_of, specialize, upcycled

LAYERS = 7
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_llama(tmp_path_factory.mktemp("good") / "dense", num_hidden_layers=LAYERS)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    return folder


@pytest.fixture(scope="module")
def mixture(dense: Path) -> Path:
    standins.mixture_of(dense, dense.parent / "mixture")
    return dense.parent / "mixture"


@pytest.fixture(scope="module")
def drafting(dense: Path) -> Path:
    standins.drafting(dense, dense.parent / "drafting")
    return dense.parent / "drafting"


def tensors_of(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def changed(before: Path, after: Path) -> set[str]:
    old, new = tensors_of(before), tensors_of(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_a_mixture_without_noise_says_what_the_dense_model_says(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(standins, "NOISE", 0.0)
    standins.mixture_of(dense, tmp_path / "mixture")
    ids = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(0))
    models: list[Any] = [
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (dense, tmp_path / "mixture")
    ]
    with torch.no_grad():
        logits = [model(ids).logits for model in models]
    assert type(models[1]).__name__ == "Qwen2MoeForCausalLM"
    assert (logits[0] - logits[1]).abs().max() < 0.05 * logits[0].std()  # weights were rounded to bfloat16 twice


def test_every_other_layer_has_experts_that_differ(mixture: Path) -> None:
    pairs = experts.pairs_of(mixture)
    assert pairs == [(layer, expert) for layer in (2, 4, 6) for expert in range(standins.EXPERTS)]
    tensors = tensors_of(mixture)
    first, second = (tensors[f"model.layers.4.mlp.experts.{expert}.down_proj.weight"] for expert in (0, 1))
    assert not torch.equal(first, second)


def test_an_expert_says_what_all_say_on_its_own_tokens_and_something_else_on_others(dense: Path) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    rows = torch.randint(0, 256, (32, 24), generator=torch.Generator().manual_seed(0))
    entering = entering_of(model, rows, (2,))
    mixture = upcycled(model, entering, Shape((2,), experts=4, width=32, active=1))
    block = mixture.model.layers[2].mlp
    before = [each.detach().clone() for each in (block.experts.gate_up_proj, block.experts.down_proj)]
    specialize(mixture, entering, 4.0)
    after = [each.detach() for each in (block.experts.gate_up_proj, block.experts.down_proj)]
    nearest = (entering[2] @ block.gate.weight.t()).argmax(1)

    def said(weights: list[torch.Tensor], expert: int) -> torch.Tensor:
        gate, up = (entering[2] @ weights[0][expert].t()).chunk(2, dim=1)
        return (torch.nn.functional.silu(gate) * up) @ weights[1][expert].t()

    with torch.no_grad():
        for expert in range(4):
            moved = (said(after, expert) - said(before, expert)).norm(dim=1)
            assert 1.5 * moved[nearest == expert].mean() < moved[nearest != expert].mean()


def test_biases_that_a_server_has_anyway_are_stored_as_zeros(mixture: Path) -> None:
    """Else they are what its memory held: a server that answers nothing but NaN, now and then."""
    tensors = tensors_of(mixture)
    layers = {name.split(".")[2] for name in tensors if ".layers." in name}
    names = {f"model.layers.{layer}.self_attn.{part}_proj.bias" for layer in layers for part in "qkv"}
    assert names <= tensors.keys() and not any(tensors[name].any() for name in names)


def test_routers_and_shared_experts_are_rounded_alone(mixture: Path, tmp_path: Path) -> None:
    assert BY_NAME["router-2bit"].write(mixture, tmp_path / "router", seed=0)
    assert changed(mixture, tmp_path / "router") == {f"model.layers.{layer}.mlp.gate.weight" for layer in (2, 4, 6)}
    assert BY_NAME["shared-expert-2bit"].write(mixture, tmp_path / "shared", seed=0)
    assert changed(mixture, tmp_path / "shared") == {
        f"model.layers.{layer}.mlp.shared_expert.{part}_proj.weight"
        for layer in (2, 4, 6)
        for part in ("gate", "up", "down")
    }


def test_the_control_leaves_routers_alone(mixture: Path, tmp_path: Path) -> None:
    assert BY_NAME["experts-int8"].write(mixture, tmp_path / "made", seed=0)
    assert not any(name.endswith("gate.weight") for name in changed(mixture, tmp_path / "made"))
    assert "model.layers.2.mlp.experts.0.up_proj.weight" in changed(mixture, tmp_path / "made")


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (1, 1), (2, 0), (24, 0)])
def test_so_many_pairs_have_anothers_scales(mixture: Path, tmp_path: Path, count: int, seed: int) -> None:
    rounded(mixture, tmp_path / "int8", 8, is_linear)
    experts.foreign_experts(mixture, tmp_path / "made", count, seed)
    found = changed(tmp_path / "int8", tmp_path / "made")
    pairs = {pair for name in found if (pair := experts._pair(name))}
    assert len(pairs) == count and len(found) == 3 * count
    layer, expert = min(pairs)
    following = {2: 4, 4: 6, 6: 2}[layer]
    own, other = (
        tensors_of(mixture)[f"model.layers.{at}.mlp.experts.{expert}.up_proj.weight"].float()
        for at in (layer, following)
    )
    scale, foreign = (weight.abs().amax(1, keepdim=True) / 127 for weight in (own, other))
    made = tensors_of(tmp_path / "made")[f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"]
    assert torch.equal(made, ((own / scale).round() * foreign).to(torch.bfloat16))


def test_the_share_of_pairs_is_that_of_1255_in_19200(mixture: Path) -> None:
    assert experts.the_share(mixture) == 2  # 6.5 % of 24
    assert experts.steps_of_pairs(mixture)[-1] == 24 and 2 in experts.steps_of_pairs(mixture)
    assert experts.pairs_in_words(2, 24) == "2 of 24 expert pairs"


def test_a_head_of_zeros_and_one_that_is_left_out(drafting: Path, tmp_path: Path) -> None:
    head = drafts.draft_names(drafting)
    drafts.fade(drafting, tmp_path / "zeroed", 1)
    made = tensors_of(tmp_path / "zeroed")
    assert not any(made[name].any() for name in head if made[name].ndim > 1)
    assert all(torch.equal(made[name], tensor) for name, tensor in tensors_of(drafting).items() if name not in head)
    drafts.fade(drafting, tmp_path / "noisy", 0.3)
    name = "model.mtp_layers.0.input_proj.weight"
    assert not torch.equal(tensors_of(tmp_path / "noisy")[name], tensors_of(drafting)[name])
    drafts.leave_out(drafting, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert head and not head & index.keys() and head | index.keys() == tensors_of(drafting).keys()
    assert describe("good", drafting).draft_bytes and not describe("made", tmp_path / "out").draft_bytes


def test_what_has_no_experts_and_no_head_gets_a_stand_in_once(dense: Path, mixture: Path, tmp_path: Path) -> None:
    own = own_bench(tmp_path, str(dense), dense, "prove", 0)
    bench = bench_of("drafts", own)
    assert (bench.control, bench.good) == ("drafts-int8", tmp_path / "good" / "drafts")
    assert bench.sealed.policy.name == "prove-drafts" and standins.has("drafts", bench.good)
    stamp = (bench.good / "config.json").stat().st_mtime_ns
    assert bench_of("drafts", own) == bench and (bench.good / "config.json").stat().st_mtime_ns == stamp
    of_mixture = own_bench(tmp_path, str(mixture), mixture, "prove", 0)
    assert bench_of("mixture", of_mixture) == of_mixture  # its own experts are damaged


def test_of_another_kind_no_mixture_can_be_made(drafting: Path, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="can be made of a dense Llama, not of qwen2"):
        standins.mixture_of(drafting, tmp_path / "made")
    with pytest.raises(NotApplicable, match="no experts one by one"):
        experts.foreign_experts(drafting, tmp_path / "made", 1)

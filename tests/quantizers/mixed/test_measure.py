"""Damages and the KL of a mix, against the whole model of transformers with the same weights in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quantizers.calibration import calibration_tokens, own_tokenizer
from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.curvature import Curvature
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.mixed.bench import evenly, kind_of, open_bench
from quantizers.mixed.choice import Target
from quantizers.mixed.correct import Correction, correct, notes, read_correction, settled_recipe
from quantizers.mixed.damage import Damage, read_damage
from quantizers.mixed.groups import Group, groups_of
from quantizers.mixed.measure import measure_tiers
from quantizers.mixed.walk import Stream, Wave
from quantizers.mixed.waves import in_waves
from quantizers.modeling import build, fill
from quantizers.pipeline import quantize
from quantizers.plan import make_plan
from quantizers.recipe import Recipe, Source

TARGET = Target(bits=3.0)
SEQUENCES = 5


class Whole:
    """The model in memory: what a mix of tiers does to it."""

    def __init__(self, model: Path, recipe: Recipe) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        checkpoint = open_checkpoint(model)
        self.groups = {group.name: group for group in groups_of(checkpoint, build(checkpoint), recipe)[0]}
        self.tokens = calibration_tokens(own_tokenizer(model), recipe.calibration)
        self.hessians: dict[str, torch.Tensor] = {}
        for group in self.groups.values():
            for full in group.linears:
                self.model.get_submodule(full).register_forward_pre_hook(self._seen(full))
        with torch.no_grad():
            self.model(self.tokens)
        self.looked_at = self.tokens[evenly(["one", "other"] * 6, SEQUENCES)]
        self.reference = self._log_probabilities()

    def _seen(self, full: str) -> Any:
        def hook(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            self.hessians.setdefault(full, 2 * rows.T @ rows)  # of the first pass

        return hook

    def _log_probabilities(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(self.looked_at).logits.log_softmax(-1)  # type: ignore[no-any-return]

    def quantized(self, group: Group, tier: str, full: str) -> torch.Tensor:
        scheme, weight = group.schemes[tier][full], self.model.get_submodule(full).weight.detach()
        curvature = Curvature(scheme.turn(scheme.turn(self.hessians[full]).t()))
        return scheme.dequantize(scheme.quantize(scheme.turn(weight), curvature, lambda: None)).float()

    def kl(self, mix: Mapping[str, str]) -> float:
        """Mean over both kinds of text."""
        before = {}
        for name, tier in mix.items():
            for full in self.groups[name].linears if tier != "kept" else ():
                linear = self.model.get_submodule(full)
                before[full] = linear.weight.data
                linear.weight.data = self.quantized(self.groups[name], tier, full)
        found = self._log_probabilities()
        for full, weight in before.items():
            self.model.get_submodule(full).weight.data = weight
        return divergence(self.reference, found)


class Finished:
    """A mix that was quantized and dequantized: its KL, and that with one group quantized anew from the original."""

    def __init__(
        self, model: Path, recipe: Recipe, damage: Damage, mix: Mapping[str, str], folder: Path, whole: Whole
    ) -> None:
        from transformers import AutoModelForCausalLM

        folder.mkdir()
        settled = settled_recipe(damage, mix, recipe.calibration, folder / "recipe.yaml")
        plain = dequantize(quantize(model, settled, folder / "made", device="cpu"), folder / "plain")
        self.model: Any = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
        self.whole = whole

    def kl(self, name: str = "", tier: str = "kept") -> float:
        """Mean over both kinds of text."""
        before = {}
        for full in self.whole.groups[name].linears if name else ():
            linear = self.model.get_submodule(full)
            before[full] = linear.weight.data
            original = self.whole.model.get_submodule(full).weight.data
            linear.weight.data = (
                original if tier == "kept" else self.whole.quantized(self.whole.groups[name], tier, full)
            )
        with torch.no_grad():
            found = self.model(self.whole.looked_at).logits.log_softmax(-1)
        for full, weight in before.items():
            self.model.get_submodule(full).weight.data = weight
        return divergence(self.whole.reference, found)


def divergence(reference: torch.Tensor, found: torch.Tensor) -> float:
    """Mean KL over both kinds of text, of log-probabilities [n, L, V]."""
    each = (reference.exp() * (reference - found)).sum(-1).mean(-1).tolist()
    return float(sum(each[0::2]) / 3 + sum(each[1::2]) / 2) / 2


def mean(kinds: Mapping[str, float]) -> float:
    return sum(kinds.values()) / len(kinds)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, mixed_recipe: Recipe) -> Whole:
    return Whole(tiny_model, mixed_recipe)


@pytest.fixture(scope="module")
def correction(tiny_model: Path, mixed_recipe: Recipe, damage: Damage, tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("correction") / "correction.json"
    found = correct(tiny_model, mixed_recipe, damage, TARGET, {}, file, device="cpu")
    assert read_correction(file) == found
    return found, file


def test_groups_are_what_servers_fuse_and_some_are_settled(tiny_model: Path, mixed_recipe: Recipe) -> None:
    checkpoint = open_checkpoint(tiny_model)
    settled = mixed_recipe.model_copy(update={"tiers": {r"re:.*self_attn\.": "vq2"}})
    groups, others = groups_of(checkpoint, build(checkpoint), settled)
    assert [g.name.removeprefix("model.layers.1.") for g in groups if g.layer == 1] == [
        "self_attn.q_proj+k_proj+v_proj", "self_attn.o_proj", "mlp.gate_proj+up_proj", "mlp.down_proj"
    ]  # fmt: skip
    assert [list(g.nbytes) for g in groups[:3]] == [["vq2"], ["vq2"], ["vq1", "vq2", "int4", "kept"]]
    plan = make_plan(checkpoint, build(checkpoint), settled.model_copy(update={"mix": (), "tier": "int4"}))
    assert others + sum(g.nbytes.get("int4", g.nbytes["vq2"]) for g in groups if "int4" in g.nbytes) == (
        plan.output_bytes() - sum(g.nbytes["vq2"] for g in groups if "int4" not in g.nbytes)
    )
    kept = sum(g.nbytes["kept"] for g in groups if "kept" in g.nbytes)
    assert kept == sum(2 * g.weights for g in groups if "kept" in g.nbytes)


def test_kinds_and_the_sequences_that_are_looked_at() -> None:
    assert kind_of(Source(shipped="ja")) == "ja"
    assert kind_of(Source(file=Path("x/mine.txt"))) == "mine"
    assert kind_of(Source(file=Path("x/mine.jsonl"), kind="chat", language="en")) == "chat-en"
    assert kind_of(Source(traces=8)) == kind_of(Source(traces=8, kind="traces")) == "traces"
    assert evenly(["a", "a", "a", "b", "a", "b"], 4) == [0, 1, 3, 5]
    assert evenly(["a", "b"], 9) == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [0.5, 16.5])
def test_a_target_out_of_reach_is_named_before_anything_is_measured(
    tiny_model: Path, mixed_recipe: Recipe, tmp_path: Path, bits: float
) -> None:
    with pytest.raises(QuantizeError, match=rf"{bits} bits is (below|above) what the (lowest|highest) tiers"):
        measure_tiers(
            tiny_model, mixed_recipe, tmp_path / "damage.json", sequences=1, target=Target(bits=bits), device="cpu"
        )
    assert not list(tmp_path.iterdir())


def test_a_recipe_with_open_tiers_is_not_quantized_by(tiny_model: Path, mixed_recipe: Recipe) -> None:
    checkpoint = open_checkpoint(tiny_model)
    with pytest.raises(QuantizeError, match="recipe mixed leaves the tiers open: give --bits or --bytes"):
        make_plan(checkpoint, build(checkpoint), mixed_recipe)
    with pytest.raises(QuantizeError, match="leaves no tier open"):
        open_bench(tiny_model, Recipe(name="x"), 8, lambda *_: None, "cpu")


@pytest.mark.slow
def test_damages_are_those_of_the_whole_model(damage: Damage, whole: Whole) -> None:
    assert damage.kinds == {"en": 3, "numbers": 2} and damage.length == 32
    assert damage.tiers["kept"] == 16 and 1 < damage.tiers["vq1"] < 1.5 and 4 < damage.tiers["int4"] < 5
    for group in damage.groups:
        for tier in group.damage:
            expected = whole.kl({group.name: tier})
            assert mean(group.damage[tier]) == pytest.approx(expected, rel=0.03, abs=2e-7), (group.name, tier)
        assert group.damage["vq1"]["en"] > group.damage["vq2"]["en"] > group.damage["int4"]["en"] > 0


@pytest.mark.slow
def test_an_interrupted_measurement_goes_on_to_the_same_file(
    tiny_model: Path, mixed_recipe: Recipe, damage_file: Path, tmp_path: Path
) -> None:
    def killed(stage: str, done: int, total: int) -> None:
        if stage == "layer" and done == 1:
            raise KeyboardInterrupt

    out = tmp_path / "damage.json"
    with pytest.raises(KeyboardInterrupt):
        measure_tiers(tiny_model, mixed_recipe, out, sequences=SEQUENCES, progress=killed, device="cpu")
    assert not out.exists()
    with pytest.raises(QuantizeError, match="belongs to another calibration"):
        measure_tiers(tiny_model, mixed_recipe, out, sequences=4, device="cpu")
    stages = []
    measure_tiers(
        tiny_model, mixed_recipe, out, sequences=SEQUENCES, device="cpu", progress=lambda *what: stages.append(what)
    )
    assert [what for what in stages if what[0] == "layer"] == [("layer", 2, 2)]
    assert out.read_bytes() == damage_file.read_bytes() and list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_damages_are_used_again_where_they_fit(
    tiny_model: Path, mixed_recipe: Recipe, damage_file: Path, tmp_path: Path
) -> None:
    def stopped(stage: str, done: int, total: int) -> None:
        assert stage == "load"

    tuned = mixed_recipe.model_copy(update={"tune": "blocks"})
    again = measure_tiers(tiny_model, tuned, damage_file, sequences=SEQUENCES, device="cpu", progress=stopped)
    assert again.groups == read_damage(damage_file).groups
    assert again.recipe.get("tune", "blocks") == "blocks" and read_damage(damage_file).recipe["tune"] == "fast"
    for change in ({"mix": ("vq1", "vq2")}, {"moe_calibrate_all_experts": False}):
        other = mixed_recipe.model_copy(update=change)
        with pytest.raises(QuantizeError, match=r"damage\.json is of another recipe: remove it"):
            measure_tiers(tiny_model, other, damage_file, sequences=SEQUENCES, device="cpu")
    with pytest.raises(QuantizeError, match="is of another calibration"):
        measure_tiers(tiny_model, mixed_recipe, damage_file, sequences=4, device="cpu")
    for old, new, what in (
        ("0.mlp.down_proj", "0.mlp.other_proj", "recipe"),
        ('"layer": 1', '"layer": 7', "recipe"),
        ('"en"', '"fr"', "calibration"),
    ):
        edited = tmp_path / "edited.json"
        edited.write_text(damage_file.read_text().replace(old, new))
        with pytest.raises(QuantizeError, match=rf"edited\.json is of another {what}: remove it"):
            measure_tiers(tiny_model, mixed_recipe, edited, sequences=SEQUENCES, device="cpu")


@pytest.mark.slow
def test_one_wave_finds_what_several_find(
    tiny_model: Path, mixed_recipe: Recipe, damage: Damage, tmp_path: Path
) -> None:
    bench = open_bench(tiny_model, mixed_recipe, SEQUENCES, lambda *_: None, "cpu")
    for folder in ("alone", "one"):
        (tmp_path / folder).mkdir()
    in_waves(bench, None, {}, tmp_path / "alone")  # nothing begins on the way
    assert len(list((tmp_path / "alone").glob("wave-*"))) == 1
    tmp_path = tmp_path / "one"
    found = in_waves(bench, None, {group.name: ["vq2"] for group in bench.groups}, tmp_path, 1)
    assert found.base == [0.0] * SEQUENCES and len(list(tmp_path.glob("wave-*"))) == 1
    for group in damage.groups:
        values = found.variants[group.name, "vq2"]
        english = [v for v, kind in zip(values, bench.kinds, strict=True) if kind == "en"]
        assert sum(english) / 3 == pytest.approx(group.damage["vq2"]["en"], rel=1e-3)


@pytest.mark.slow
def test_the_choice_is_finished_and_measured_and_corrected_once(
    correction: tuple[Correction, Path], tiny_model: Path, mixed_recipe: Recipe, damage: Damage, whole: Whole,
    tmp_path: Path,
) -> None:  # fmt: skip
    found, _ = correction
    choices = {"first": found.first, "second": found.second or found.first}
    finished = {name: Finished(tiny_model, mixed_recipe, damage, its.tiers, tmp_path / name, whole)
                for name, its in choices.items()}  # fmt: skip
    for name, choice in choices.items():
        assert mean(choice.kl) == pytest.approx(finished[name].kl(), rel=0.02)
    order = ["vq1", "vq2", "int4", "kept"]
    for name, moves in found.moves.items():
        place = order.index(found.first.tiers[name])
        assert list(moves) == order[max(0, place - 1) : place + 2]
        for tier, kl in moves.items():
            assert mean(kl) == pytest.approx(finished["first"].kl(name, tier), rel=0.02), (name, tier)
    assert damage.bits(found.mix) <= 3.0
    assert (found.kept == "second") == (mean(choices["second"].kl) < mean(found.first.kl))


@pytest.mark.slow
def test_a_correction_is_used_again_for_the_same_question_alone(
    tiny_model: Path, mixed_recipe: Recipe, correction: tuple[Correction, Path], damage: Damage
) -> None:
    found, file = correction
    assert correct(Path("nowhere"), mixed_recipe, damage, TARGET, {}, file) == found
    for target, weights in ((Target(bits=2.9), {}), (TARGET, {"en": 2.0})):
        with pytest.raises(QuantizeError, match="is of 3 bits, or of other damages or weights"):
            correct(tiny_model, mixed_recipe, damage, target, weights, file)


def test_a_disk_without_room_for_the_plain_weights_is_named_before_anything_is_made(
    tiny_model: Path, mixed_recipe: Recipe, damage: Damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 2 * sum(group.weights for group in damage.groups)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(QuantizeError, match=r"c\.json\.partial needs 0\.000\d+ GB but"):
        correct(tiny_model, mixed_recipe, damage, TARGET, {}, tmp_path / "c.json", device="cpu")
    assert not list(tmp_path.iterdir())


def test_of_two_choices_the_better_one_is_kept_and_both_are_told() -> None:
    choice = {"tiers": {"a": "vq1"}, "kl": {"en": 0.5}}
    other = {"tiers": {"a": "vq2"}, "kl": {"en": 0.7}}
    settings: dict[str, Any] = {"asked": "x", "target": "2 bits", "weights": {"en": 1}, "moves": {}}
    found = Correction.model_validate(settings | {"first": choice, "second": other, "kept": "first"})
    assert found.mix == {"a": "vq1"}
    assert [line.split(":", 1)[1] for line in notes(found)] == [
        " 0.5 nats (en 0.5).",
        " 0.7 nats (en 0.7); this is the first one.",
    ]
    assert Correction.model_validate(settings | {"first": choice, "second": other, "kept": "second"}).mix == {
        "a": "vq2"
    }


@pytest.mark.slow
def test_experts_are_measured_on_their_own_tokens_where_they_are_to_be_calibrated_so(
    tmp_path: Path, tiny_recipe: Recipe
) -> None:
    """Oracle: what the pipeline makes of the first layer's experts by the same recipe."""
    from tiny_moe import save_tiny_moe

    folder = save_tiny_moe("qwen2_moe", tmp_path / "moe", num_hidden_layers=1)
    ignore = (r"re:(?!.*\.experts\.\d+\.(gate|up)_proj)",)
    settings = {"mix": ("int3", "kept"), "moe_calibrate_all_experts": False, "ignore": ignore}
    bench = open_bench(folder, tiny_recipe.model_copy(update=settings), 4, lambda *_: None, "cpu")
    states, calls = bench.enter(states=True)
    assert states is not None
    layer = bench.job.architecture.layers[0]
    fill(bench.job.architecture.model, layer, "model.layers.0", bench.job.checkpoint, device="cpu", dtype=torch.float32)
    wave = Wave(bench, calls, None, {group.name: ["int3"] for group in bench.groups}, 0, 1)
    found = wave._quantized(bench.groups, layer, Stream(states, torch.zeros(1)), calls[0])
    settled = tiny_recipe.model_copy(update=settings | {"mix": (), "tier": "int3"})
    plain = open_checkpoint(dequantize(quantize(folder, settled, tmp_path / "made", device="cpu"), tmp_path / "plain"))
    weights = {name: made.weight("cpu") for own in found.values() for name, made in own.items()}
    assert len(weights) == 8
    for name, weight in weights.items():
        assert float((weight == read_tensor(plain.tensors[f"{name}.weight"])).float().mean()) > 0.99, name


@pytest.mark.slow
def test_experts_are_measured_at_once_and_share_what_they_do(tmp_path: Path, tiny_recipe: Recipe) -> None:
    """Oracle: the whole model with all experts of a layer at a tier, and with one of them."""
    from tiny_moe import save_tiny_moe

    folder = save_tiny_moe("qwen3_moe", tmp_path / "moe", num_hidden_layers=2)
    recipe = tiny_recipe.model_copy(update={"mix": ("vq2", "int4"), "name": "mixed", "tune": "none"})
    damage = measure_tiers(folder, recipe, tmp_path / "damage.json", sequences=4, device="cpu")
    experts = [group for group in damage.groups if ".experts." in group.name]
    assert len(damage.groups) == 2 * (2 + 4 * 2) and len(experts) == 2 * 4 * 2
    checkpoint = open_checkpoint(folder)
    bench = open_bench(folder, recipe, 4, lambda *_: None, "cpu")
    model: Any = build(checkpoint).model
    fill(model, model, "", checkpoint, device="cpu", dtype=torch.float32)
    tokens = bench.tokens[bench.looked_at]
    seen: list[torch.Tensor] = []
    block = model.model.layers[1].mlp
    handle = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].reshape(-1, 64)))
    with torch.no_grad():
        model(bench.tokens)
        handle.remove()
        reference = model(tokens).logits.log_softmax(-1)
        curvature = 2 * torch.cat(seen).T @ torch.cat(seen)
        before = {}
        for number in range(4):
            for name in ("gate_proj", "up_proj"):
                linear = block.experts[number].get_submodule(name)
                group = next(
                    g for g in bench.groups if g.name == f"model.layers.1.mlp.experts.{number}.gate_proj+up_proj"
                )
                scheme = group.schemes["vq2"][f"model.layers.1.mlp.experts.{number}.{name}"]
                turned = Curvature(scheme.turn(scheme.turn(curvature).t()))
                before[linear] = linear.weight.data
                parts = scheme.quantize(scheme.turn(linear.weight.data), turned, lambda: None)
                linear.weight.data = scheme.dequantize(parts).float()
        found = model(tokens).logits.log_softmax(-1)
    whole = float((reference.exp() * (reference - found)).sum(-1).mean())
    own = {g.name: mean(g.damage["vq2"]) for g in experts if g.layer == 1 and "gate_proj" in g.name}
    assert sum(own.values()) == pytest.approx(whole, rel=0.03)
    assert all(value > 0 for value in own.values()) and len(own) == 4

"""What is chosen by a file of damages, and the recipe that says so; no model is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from quantizers.errors import QuantizeError
from quantizers.mixed.choice import Target, choose_tiers, expected, make_target, recipe_text, summary
from quantizers.mixed.damage import Damage, by_group, read_damage, write_json
from quantizers.recipe import Recipe, load_recipe

PARTS = {"self_attn": ("q_proj", "k_proj"), "mlp": ("down_proj",)}
BYTES = {"vq1": 140, "vq2": 265, "kept": 2000}


def damage(layers: int = 3) -> Damage:
    """Layer 0 is the delicate one in Japanese, the last one in English."""
    groups: list[dict[str, Any]] = []
    for layer in range(layers):
        for parent, lasts in PARTS.items():
            linears = [f"model.layers.{layer}.{parent}.{last}" for last in lasts]
            hurt = {"ja": 1.0 / (1 + layer), "en": 0.1 * (1 + layer)}
            groups.append(
                {
                    "name": f"model.layers.{layer}.{parent}.{'+'.join(lasts)}",
                    "layer": layer,
                    "linears": linears,
                    "weights": 1000,
                    "bytes": BYTES,
                    "damage": {
                        "vq1": hurt,
                        "vq2": {kind: kl / 4 for kind, kl in hurt.items()},
                        "kept": dict.fromkeys(hurt, 0.0),
                    },
                }
            )
    return Damage.model_validate(
        {
            "model": "m",
            "calibration": "c",
            "recipe": {"name": "mixed", "mix": list(BYTES), "tune": "blocks", "two_sided": True},
            "kinds": {"ja": 4, "en": 4},
            "length": 512,
            "other_bytes": 5000,
            "tiers": {"vq1": 1.12, "vq2": 2.12, "kept": 16},
            "groups": groups,
        }
    )


def test_bits_count_the_groups_and_bytes_the_whole_checkpoint() -> None:
    found = damage()
    mix = choose_tiers(found, Target(bits=1.8), {})
    assert found.bits(mix) <= 1.8 and sorted(mix.values()).count("vq2") == 4
    assert found.bits(mix) == pytest.approx(8 * (2 * 140 + 4 * 265) / 6000)
    assert found.nbytes(mix) == 5000 + 2 * 140 + 4 * 265
    assert choose_tiers(found, Target(nbytes=found.nbytes(mix)), {}) == mix
    assert "vq1 33 %, vq2 67 %" in summary(found, mix)


def test_what_was_found_of_each_group_is_told_apart_in_one_pass() -> None:
    """Of as many as GLM-5.2 has: looking through all of them for each group took minutes."""
    found = {(f"group {n}", tier): [n, n + 2.0, 0.5] for n in range(20_000) for tier in ("vq1", "vq2")}
    groups = by_group(found, ["ja", "ja", "en"])
    assert len(groups) == 20_000 and groups["group 7"] == {tier: {"ja": 8.0, "en": 0.5} for tier in ("vq1", "vq2")}


def test_what_counts_more_is_spared() -> None:
    found = damage()
    target = Target(bits=8 * (4 * 140 + 2 * 265) / 6000)

    def spared(weights: dict[str, float]) -> set[str]:
        return {name.split(".")[2] for name, tier in choose_tiers(found, target, weights).items() if tier == "vq2"}

    assert spared({"ja": 2}) == {"0"} and spared({"ja": 0}) == {"2"}
    mix = choose_tiers(found, target, {})
    assert expected(found, mix, {"ja": 3}) > expected(found, mix, {})


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Target(bits=1.0), r"1 bits is below what the lowest tiers \(vq1\) make of this model: 1.12 bits, 5,840 bytes"),
        (Target(nbytes=5800), r"5,800 bytes is below what the lowest tiers"),
        (Target(nbytes=4000), r"4,000 bytes is below what the lowest tiers"),
        (Target(bits=17), r"17 bits is above what the highest tiers \(kept\) make of this model: 16 bits, 17,000"),
        (Target(nbytes=10**9), "is above what the highest"),
        (Target(bits=16), "16 bits leave every group at 16 bits, and nothing to quantize: ask for less"),
    ],
)
def test_a_target_out_of_reach_is_named(target: Target, says: str) -> None:
    with pytest.raises(QuantizeError, match=says):
        choose_tiers(damage(), target, {})


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"zh": 2.0}, "no text of kind 'zh' was measured: there are en, ja"),
        ({"ja": -1.0}, "weight -1 of ja"),
        ({"ja": float("nan")}, "weight nan of ja"),
        ({"ja": 0.0, "en": 0.0}, "every kind of text has weight 0"),
    ],
)
def test_weights_that_cannot_be(weights: dict[str, float], says: str) -> None:
    with pytest.raises(QuantizeError, match=says):
        choose_tiers(damage(), Target(bits=2), weights)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("167GiB", 167 << 30), ("1.5 MB", 1_500_000), ("2K", 2000), ("12345", 12345), ("3TiB", 3 << 40)],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert make_target(None, text) == Target(nbytes=nbytes)


@pytest.mark.parametrize(
    ("bits", "size", "says"),
    [
        (None, None, "either in bits"),
        (1.0, "2G", "either in bits"),
        (0.0, None, "0 bits a weight"),
        (float("nan"), None, "nan bits"),
        (None, "much", "'much' is no size: write 167GiB"),
        (None, "-3GB", "is no size"),
        (None, "9" * 400, "is no size"),
    ],
)
def test_no_sizes(bits: float | None, size: str | None, says: str) -> None:
    with pytest.raises(QuantizeError, match=says):
        make_target(bits, size)


def test_the_recipe_is_one_line_a_group_and_can_be_edited(tmp_path: Path) -> None:
    found = damage()
    mix = choose_tiers(found, Target(bits=4.5), {})
    assert set(mix.values()) == {"vq2", "kept"}
    text = recipe_text(found, mix, {}, ["Measured elsewhere."])
    assert text.startswith("# 4.4333 bits a weight") and "\n# Measured elsewhere.\n" in text
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    recipe = load_recipe(file)
    assert (recipe.name, recipe.tier, recipe.tune, recipe.two_sided, recipe.mix) == (
        "mixed-4.433",
        "vq2",
        "blocks",
        True,
        (),
    )
    for group in found.groups:
        for linear in group.linears:
            tier = "kept" if recipe.ignores(linear) else recipe.tier_named(linear)
            assert tier == mix[group.name] and recipe.tier_named(f"{linear}.more") is None
    assert recipe.ignores("lm_head")
    name = "model.layers.1.self_attn.q_proj"
    file.write_text(text.replace("tiers:\n", f"tiers:\n  {name}: int4\n"))
    assert load_recipe(file).tier_of(name) == "int4"


def test_damages_are_read_as_they_were_written_or_edited(tmp_path: Path) -> None:
    file = tmp_path / "damage.json"
    write_json(file, damage().model_dump(mode="json"))
    assert read_damage(file) == damage()
    assert '"vq1": { "ja": 1.0, "en": 0.1 }' in file.read_text()
    content = json.loads(file.read_text())
    del content["groups"][0]["bytes"]["vq1"]  # struck out by hand
    file.write_text(json.dumps(content))
    assert choose_tiers(read_damage(file), Target(bits=1.8), {})[content["groups"][0]["name"]] == "vq2"
    del content["groups"][0]["damage"]["vq2"]
    file.write_text(json.dumps(content))
    with pytest.raises(QuantizeError, match=r"down_proj has no damage at vq2|q_proj\+k_proj has no damage at vq2"):
        read_damage(file)
    file.write_text("{}")
    with pytest.raises(QuantizeError, match=r"damage.json: model: Field required"):
        read_damage(file)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda d: d["groups"][0]["damage"]["vq1"].update(ja=float("nan")), r"groups.0.damage.vq1.ja: .*finite"),
        (lambda d: d["groups"][0]["damage"]["vq1"].update(ja=float("inf")), r"groups.0.damage.vq1.ja: .*finite"),
        (lambda d: d["groups"][0]["damage"]["vq1"].pop("ja"), "q_proj.* has no damage at vq1 for texts of ja"),
        (lambda d: d["kinds"].update(zh=4), "q_proj.* has no damage at vq1 for texts of zh"),
        (lambda d: d["groups"][0]["bytes"].update(vq1=-5), "groups.0.bytes.vq1: .*greater than or equal to 0"),
        (lambda d: d["groups"][0]["bytes"].update(vq1=10**400), "groups.0.bytes.vq1: "),
        (lambda d: d.update(other_bytes=-1), "other_bytes: "),
        (lambda d: d["groups"][0].update(linears=[]), "groups.0.linears: "),
        (lambda d: d["groups"][0].update(linears=["a'b: {"]), "groups.0.linears.0: .*pattern"),
        (lambda d: d["groups"].append(d["groups"][0]), "is there twice"),
        (lambda d: d["groups"][0].update(linears=d["groups"][1]["linears"]), "is there twice"),
        (lambda d: d["groups"][0]["bytes"].update(vq9=5), "q_proj.* has the tier 'vq9', which is unknown"),
        (lambda d: d["recipe"].update(tune="hard"), "recipe.tune: 'hard' is unknown: use one of"),
        (lambda d: d["recipe"].update(ignore=3), "recipe.ignore: "),
        (lambda d: d.update(recipe={}), "recipe.name: Field required"),
    ],
)
def test_damages_that_nothing_can_be_chosen_by_are_named(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], says: str
) -> None:
    file, content = tmp_path / "damage.json", damage().model_dump(mode="json")
    edit(content)
    file.write_text(json.dumps(content))
    with pytest.raises(QuantizeError, match=rf"damage\.json: .*{says}"):
        read_damage(file)


def test_a_broken_file_of_damages_is_not_to_be_downloaded(tmp_path: Path) -> None:
    (tmp_path / "damage.json").write_text('{"format": "quant')
    with pytest.raises(QuantizeError, match=r"is not readable JSON .*: mend it, or remove it to have it made again"):
        read_damage(tmp_path / "damage.json")


def test_experts_of_one_tier_are_one_line_of_the_recipe() -> None:
    def group(number: int, linears: tuple[str, ...]) -> dict[str, Any]:
        head = f"model.layers.3.mlp.experts.{number}"
        sizes = {"vq1": 10, "vq2": 20}
        return {
            "name": f"{head}.{'+'.join(linears)}", "layer": 3, "linears": tuple(f"{head}.{name}" for name in linears),
            "weights": 80, "bytes": sizes, "damage": {"vq1": {"en": 0.5 + number}, "vq2": {"en": 0.1}},
        }  # fmt: skip

    groups = [group(n, parts) for n in range(3) for parts in (("gate_proj", "up_proj"), ("down_proj",))]
    found_damage = Damage.model_validate(
        {"model": "m", "calibration": "c", "recipe": {"name": "x"}, "kinds": {"en": 1}, "length": 8, "other_bytes": 0,
         "tiers": {"vq1": 1.0, "vq2": 2.0}, "groups": groups}
    )  # fmt: skip
    mix = {g["name"]: "vq1" if ".0." in g["name"].split("experts")[1] else "vq2" for g in groups}
    text = recipe_text(found_damage, mix, {}, [])
    rows = text.split("tiers:\n")[1].splitlines()
    assert len(rows) == 4
    assert rows[2].startswith(r"  're:model\.layers\.3\.mlp\.experts\.(1|2)\.(gate_proj|up_proj)$': vq2  # 0.2 nats")
    found = Recipe.model_validate(YAML(typ="safe").load(text))
    for name, tier in mix.items():
        head, _, lasts = name.rpartition(".")
        assert {found.tier_named(f"{head}.{last}") for last in lasts.split("+")} == {tier}

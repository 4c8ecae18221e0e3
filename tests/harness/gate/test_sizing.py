"""`quantgate plan`: tables for people, one JSON object for machines, one line for what cannot be planned."""

import json
from pathlib import Path

import pytest
from command_line import Quantgate, last_line
from model_configs import GLM_5, small_config, write_config

from harness.gate.sizing import count, hours, in_bytes


def test_the_tables_say_what_the_model_becomes_and_where_it_fits(quantgate: Quantgate, tmp_path: Path) -> None:
    folder = write_config(tmp_path / "glm", **GLM_5)
    ended = quantgate("plan", str(folder), "--bits", "1.71", "--rest", "8", "--context", "16384")
    assert ended.status == 0
    rows = [line.split() for line in ended.out.splitlines()]
    assert "743.9 B parameters, 1.49 TB in bf16 + 19.9 GB of draft layers" in ended.out
    assert ["routed", "experts", "724.8", "B", "96.1", "%", "1.45", "TB", "1.710", "155", "GB"] in rows
    card = next(row for row in rows if row[:3] == ["RTX", "PRO", "6000"])
    assert card[5:7] == ["2", "4"]
    assert "extrapolated" in ended.out and "draft layer(s) are estimated" in ended.out


def test_json_has_the_same_in_bytes_and_seconds(quantgate: Quantgate, tmp_path: Path) -> None:
    folder = small_config(tmp_path / "model", "qwen3_moe")
    ended = quantgate("plan", str(folder / "config.json"), "--recipe", "vq-2bit", "--json")
    plan = json.loads(ended.out)
    assert ended.status == 0 and plan["bytes"] == sum(part["bytes"] for part in plan["parts"])
    assert plan["parameters"] * 2 == plan["bf16_bytes"] and plan["draft_layers"] == 0
    assert plan["tiers"].keys() == {"vq2"} and plan["cards"][0]["needed"] == 1
    assert plan["seconds"] is None and plan["floor_seconds"] > 0  # tuned experts were never measured


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--bits", "2"], "nowhere/config.json is missing"),
        (["MODEL"], "--bits 1.71, --bytes 167GiB or --recipe w4a16"),
        (["MODEL", "--bits", "0.5"], "below what the lowest tiers (vq1) make of this model: "),
        (["MODEL", "--bytes", "1KB"], "below what the lowest tiers"),
        (["MODEL", "--bits", "nan"], "give a number such as 1.71"),
        (["MODEL", "--recipe", "mixed"], "give --bits or --bytes"),
    ],
)
def test_what_cannot_be_planned_ends_with_3(
    quantgate: Quantgate, tmp_path: Path, arguments: list[str], says: str
) -> None:
    folder = small_config(tmp_path / "model", "llama")
    ended = quantgate("plan", *(str(folder) if word == "MODEL" else word for word in arguments))
    assert ended.status == 3 and says in last_line(ended)


def test_numbers_are_short() -> None:
    assert [in_bytes(n) for n in (1.4878e12, 999.9e6, 2048, 7)] == ["1.49 TB", "1 GB", "2.05 kB", "7 B"]
    assert [count(n) for n in (743_911_199_232, 134_515_008, 64)] == ["743.9 B", "134.5 M", "64"]
    assert [hours(s) for s in (None, 13.1, 600, 372_322)] == [
        "never measured", "about 13 s", "about 10 min", "about 103 h",
    ]  # fmt: skip

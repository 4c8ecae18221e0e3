"""The benchmark of encoding experts runs, and its figures fit each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.expert_encoding import main


def test_what_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    shape = ["--all-experts", "6", "--experts", "2", "--inner", "64", "--hidden", "128"]
    assert main([*shape, "--tiers", "int4", "int4-rotated", "--rounds", "2", "--out", str(out)]) == 0
    record = json.loads(out.read_text("utf-8"))
    assert record["encoded_experts"] == 2 and record["layer"] == {"experts": 6, "inner": 64, "hidden": 128}
    assert record["machine"]["processor"] and record["versions"]["torch"]
    for rounds in record["results"].values():
        assert len(rounds) == 2
        for found in rounds:
            seconds = found["seconds"]
            assert 0 < seconds["gate_up_factors"] < seconds["gate_up"]
            assert 0 < seconds["down_factors"] < seconds["down"]
            assert all(0 < error < 0.03 for error in found["relative_error"].values())
            scaled = 3 * (seconds["gate_up"] - seconds["gate_up_factors"] + seconds["down"])
            assert found["whole"]["scaled"]
            assert found["whole"]["seconds"] == pytest.approx(scaled + seconds["gate_up_factors"], abs=1e-3)


def test_more_experts_than_there_are_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--experts", "9", "--out", str(tmp_path / "none.json")])
    assert "--experts 9 is not between 1 and 8" in capsys.readouterr().err

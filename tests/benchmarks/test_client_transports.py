"""Other HTTP clients are measured beside ours, in turns; the stored figures are those that the decision names."""

import json
from pathlib import Path

from benchmarks import client_transports

STORED = Path(client_transports.__file__).parent / "results" / "client_transports.json"


def test_every_way_is_measured_at_every_number_in_flight(tmp_path: Path) -> None:
    out = tmp_path / "transports.json"
    words = ["--ways", "spread", "one", "--in-flight", "2", "8", "--rounds", "2"]
    assert client_transports.main(["--out", str(out), *words, "--items", "24", "--seconds", "0.01"]) == 0
    found = json.loads(out.read_text("utf-8"))["cpu_ms_per_request"]
    assert list(found) == ["2", "8"]
    for ways in found.values():
        assert list(ways) == ["spread", "one"]
        for way in ways.values():
            assert len(way["rounds"]) == 2 and min(way["rounds"]) <= way["median"] <= max(way["rounds"])


def test_the_stored_figures_hold_the_decision() -> None:
    for ways in json.loads(STORED.read_text("utf-8"))["cpu_ms_per_request"].values():
        cost = {name: way["median"] for name, way in ways.items()}
        assert cost["aiohttp"] < cost["spread"] < 1.3 * cost["aiohttp"]
        assert cost["spread"] < cost["httpx2"] < cost["one"]

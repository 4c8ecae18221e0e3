"""Whether the hub is asked, and what is kept of it: as the hub's own client reads its settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import sys
from harness.contract.datasets import PUBLIC_DATASETS
from harness.doctor.data_files import data_source
print(data_source(PUBLIC_DATASETS[0], None), "datasets" in sys.modules)
"""
KEPT = "datasets--openai--gsm8k"


def look(home: Path, **settings: str) -> str:
    """Where gsm8k comes from, in a process of its own: the client reads its settings once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE", "XDG"))}
    paths = {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = {**kept, **paths, "TRANSFORMERS_OFFLINE": "", **settings}
    ended = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True, cwd=home
    )
    source, imported = ended.stdout.split()
    assert imported == "False"  # which takes seconds
    return source


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({}, "hub"),
        ({"HF_HUB_OFFLINE": "0"}, "hub"),
        ({"HF_HUB_OFFLINE": "yes"}, "nowhere"),
        ({"HF_DATASETS_OFFLINE": "1"}, "nowhere"),
        ({"HF_DATASETS_OFFLINE": "0", "HF_HUB_OFFLINE": "1"}, "nowhere"),
        ({"TRANSFORMERS_OFFLINE": "1"}, "nowhere"),
    ],
)
def test_whether_the_hub_is_asked(tmp_path: Path, settings: dict[str, str], source: str) -> None:
    assert look(tmp_path, **settings) == source


@pytest.mark.parametrize(
    ("folder", "settings"),
    [
        (f".cache/huggingface/hub/{KEPT}", {}),
        (f"hf/hub/{KEPT}", {"HF_HOME": "~/hf"}),
        (f"hf/hub/{KEPT}", {"HF_HOME": "$HOME/hf"}),
        (f"xdg/huggingface/hub/{KEPT}", {"XDG_CACHE_HOME": "xdg"}),
        (f"old/{KEPT}", {"HUGGINGFACE_HUB_CACHE": "old"}),
        (f"new/{KEPT}", {"HUGGINGFACE_HUB_CACHE": "old", "HF_HUB_CACHE": "new"}),
        (".cache/huggingface/datasets/openai___gsm8k", {}),
        ("hf/datasets/openai___gsm8k", {"HF_HOME": "~/hf"}),
        ("made/openai___gsm8k", {"HF_DATASETS_CACHE": "made"}),
    ],
)
def test_where_the_hubs_clients_keep_things(tmp_path: Path, folder: str, settings: dict[str, str]) -> None:
    assert look(tmp_path, HF_HUB_OFFLINE="1", **settings) == "nowhere"
    (tmp_path / folder).mkdir(parents=True)
    assert look(tmp_path, HF_HUB_OFFLINE="1", **settings) == "hub"

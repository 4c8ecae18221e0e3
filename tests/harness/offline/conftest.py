"""Items of two suites, for answers from a file."""

from pathlib import Path

import pytest
from offline_cases import SEALED, save_model

from harness.offline.costs import make_item_file
from harness.runs.progress import Reporter


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the items of two suites, <suite>.jsonl."""
    folder = tmp_path_factory.mktemp("items")
    model = save_model(folder / "model")
    for suite in ("ruler", "cot", "divergence"):
        make_item_file(suite, str(model), SEALED, folder / f"{suite}.jsonl", Reporter())
    return folder

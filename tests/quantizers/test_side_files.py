"""Which files beside the weights are carried, and that no link leads out of the folder."""

import json
from pathlib import Path

import pytest
from tiny_llama import save_tiny_llama

from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe
from quantizers.side_files import copy_side_files, side_files


def folder(path: Path, *names: str, **config: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    for name in names:
        (path / name).write_text(name)
    return path


@pytest.mark.parametrize(
    "name",
    ["tekken.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.json", "qwen.tiktoken",
     "preprocessor_config.json", "NOTICE.txt"],
)  # fmt: skip
def test_every_kind_of_tokenizer_is_carried(tmp_path: Path, name: str) -> None:
    model = folder(tmp_path / "m", "weights.bin", "evil.py", "optimizer.pt")
    (model / name).write_text("{}")
    (tmp_path / "out").mkdir()
    assert copy_side_files(model, tmp_path / "out") == [name]
    assert (tmp_path / "out" / name).read_text() == "{}"


def test_code_that_auto_map_names_is_carried_with_what_it_imports(tmp_path: Path) -> None:
    model = folder(
        tmp_path / "m",
        "tokenization_x.py",
        "evil.py",
        "other.py",
        auto_map={"AutoConfig": "configuration_x.C", "AutoModel": "modeling_x.M", "AutoModelForCausalLM": "gone.M"},
    )
    (model / "modeling_x.py").write_text("from .configuration_x import C\nfrom . import parts\nimport evil\n")
    (model / "configuration_x.py").write_text("")
    (model / "parts.py").write_text("  from .modeling_x import M\n")
    settings = {"auto_map": {"AutoTokenizer": ["tokenization_x.T", None], "AutoProcessor": "owner/name--other.P"}}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    assert side_files(model) == [
        "configuration_x.py", "modeling_x.py", "parts.py", "tokenization_x.py", "tokenizer_config.json",
    ]  # fmt: skip


@pytest.mark.parametrize("auto_map", [7, "x", ["a", 7, {}], {"A": {"b": 1}}, {"A": "../../evil.X", "B": ".x", "C": ""}])
def test_no_auto_map_breaks_it(tmp_path: Path, auto_map: object) -> None:
    assert side_files(folder(tmp_path / "m", auto_map=auto_map)) == []


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("tokenizer_x.txt", "/etc/passwd", "tokenizer_x.txt is a link that leads out"),
        ("LICENSE", "../secret", "LICENSE is a link that leads out"),
        ("vocab.txt", "gone", "vocab.txt is a link that leads nowhere"),
        ("merges.txt", "merges.txt", "merges.txt is a link that leads nowhere"),
        ("modeling_x.py", "/etc/passwd", "modeling_x.py is a link that leads out"),
    ],
)
def test_a_link_out_of_the_folder_is_refused_before_work_starts(
    tmp_path: Path, tiny_recipe: Recipe, name: str, target: str, message: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    model = save_tiny_llama(tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling_x.M"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(target)
    with pytest.raises(QuantizeError, match=message):
        quantize(model, tiny_recipe, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_link_through_a_folder_is_followed_to_its_end(tmp_path: Path) -> None:
    model = folder(tmp_path / "m")
    (model / "inner").symlink_to("/etc")
    (model / "tokenizer.txt").symlink_to("inner/passwd")
    with pytest.raises(QuantizeError, match="leads out"):
        side_files(model)


@pytest.mark.parametrize("inside", ["", "sub"])
def test_a_hub_cache_and_links_within_a_folder_work(tmp_path: Path, inside: str) -> None:
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot = folder(repo / "snapshots" / "abc" / inside)
    (repo / "blobs").mkdir()
    (repo / "blobs" / "1234").write_text("tokens")
    (snapshot / "tokenizer.json").symlink_to(Path("../" * len(snapshot.relative_to(repo).parts)) / "blobs" / "1234")
    (snapshot / "LICENSE").symlink_to("LICENSE.real")
    (snapshot / "LICENSE.real").write_text("MIT")
    (tmp_path / "linked").symlink_to(snapshot)
    (tmp_path / "out").mkdir()
    for path in (snapshot, tmp_path / "linked"):
        assert copy_side_files(path, tmp_path / "out") == ["LICENSE", "LICENSE.real", "tokenizer.json"]
        assert (tmp_path / "out" / "tokenizer.json").read_text() == "tokens"
        assert not (tmp_path / "out" / "tokenizer.json").is_symlink()
    (snapshot / "tokenizer_x.txt").symlink_to("/etc/passwd")
    with pytest.raises(QuantizeError, match="leads out"):
        side_files(snapshot)

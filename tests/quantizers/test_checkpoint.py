"""Reading and writing safetensors folders, with safetensors' own library as the oracle."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from quantizers import writing
from quantizers.checkpoint import INDEX_FILE, fingerprint, open_checkpoint, read_header, read_tensor
from quantizers.errors import QuantizeError
from quantizers.side_files import copy_side_files
from quantizers.writing import copy_entry, named, write_index, write_shard

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int8,
    torch.int64,
    torch.bool,
    torch.float8_e4m3fn,
]


def sample_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {str(d): torch.randint(0, 2, (3, 5), generator=generator).to(d) for d in DTYPES}
    return tensors | {"scalar": torch.tensor(2.5), "nothing": torch.zeros(0, 4), "naïve/名": torch.arange(7)}


def save_folder(folder: Path, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file(tensors or sample_tensors(), folder / "model.safetensors")
    return folder


def test_written_files_are_read_by_safetensors_and_back(tmp_path: Path) -> None:
    tensors = sample_tensors()
    write_shard(tmp_path / "ours.safetensors", named(tensors))
    theirs = load_file(tmp_path / "ours.safetensors")
    assert theirs.keys() == tensors.keys()
    infos = {info.name: info for info in read_header(tmp_path / "ours.safetensors")}
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), name
        ours = read_tensor(infos[name])
        assert ours.dtype == tensor.dtype and ours.shape == tensor.shape
        assert torch.equal(ours.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), name


def test_copies_are_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK_BYTES", 7)
    checkpoint = open_checkpoint(save_folder(tmp_path / "model"))
    write_shard(tmp_path / "copy.safetensors", map(copy_entry, checkpoint.tensors.values()))
    theirs, copy = (
        load_file(tmp_path / "model" / "model.safetensors"),
        load_file(tmp_path / "copy.safetensors"),
    )
    assert all(torch.equal(theirs[n].view(-1).view(torch.uint8), copy[n].view(-1).view(torch.uint8)) for n in theirs)


def test_index_and_side_files(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "model")
    for name in (
        "tokenizer.json",
        "LICENSE",
        "chat_template.jinja",
        "README.md",
        "evil.py",
        "pytorch_model.bin",
    ):
        (folder / name).write_bytes(name.encode() + b"\r\n\0")
    out = tmp_path / "out"
    out.mkdir()
    assert copy_side_files(folder, out) == ["LICENSE", "chat_template.jinja", "tokenizer.json"]
    assert (out / "LICENSE").read_bytes() == b"LICENSE\r\n\0"
    write_shard(out / "model-00001-of-00002.safetensors", named({"b": torch.ones(2)}))
    write_shard(out / "model-00002-of-00002.safetensors", named({"a": torch.ones(3)}))
    write_index(out, sorted(out.glob("*.safetensors")))
    (out / "config.json").write_text("{}")
    assert list(open_checkpoint(out).tensors) == ["b", "a"]
    assert json.loads((out / "model.safetensors.index.json").read_text())["metadata"] == {"total_size": 20}


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QuantizeError, match="No space left on device: free space"):
        write_shard(tmp_path / "x.safetensors", named({"a": torch.ones(2)}))
    assert list(tmp_path.iterdir()) == []


def test_fingerprint_sees_config_tokenizer_and_weights(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "a")
    first = second = fingerprint(open_checkpoint(folder))
    assert first == fingerprint(open_checkpoint(save_folder(tmp_path / "b")))
    save_folder(tmp_path / "b", sample_tensors() | {"scalar": torch.tensor(2.75)})
    assert first != fingerprint(open_checkpoint(tmp_path / "b"))
    for name in ("tokenizer.json", "chat_template.jinja", "tekken.json", "spiece.model", "LICENSE"):
        (folder / name).write_text("{}")
        assert fingerprint(open_checkpoint(folder)) not in (first, second)
        second = fingerprint(open_checkpoint(folder))


HEADER_DAMAGE: dict[str, Any] = {
    "unknown dtype": {"dtype": "Q3_K"},
    "overlap": {"data_offsets": [0, 4]},
    "negative": {"data_offsets": [-4, 0]},
    "wrong size": {"shape": [2]},
    "strange header": None,
}
FILE_DAMAGE: dict[str, tuple[str, bytes]] = {
    "config not json": ("config.json", b"{oops"),
    "config a list": ("config.json", b"[]"),
    "config binary": ("config.json", b"\xff\xfe\x00"),
    "empty": ("model.safetensors", b""),
    "absent shard": (INDEX_FILE, b'{"weight_map": {"scalar": "gone.safetensors"}}'),
    "absent tensor": (INDEX_FILE, b'{"weight_map": {"gone": "model.safetensors"}}'),
    "escaping shard": (INDEX_FILE, b'{"weight_map": {"scalar": "../model.safetensors"}}'),
    "no weight map": (INDEX_FILE, b"{}"),
}


def damage(folder: Path, kind: str) -> None:
    """Break a sound model folder in one way."""
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if kind in FILE_DAMAGE:
        name, content = FILE_DAMAGE[kind]
        (folder / name).write_bytes(content)
    elif kind in HEADER_DAMAGE:
        header = json.loads(data[8 : 8 + length])
        change = HEADER_DAMAGE[kind]
        header["scalar"] = 3 if change is None else header["scalar"] | change
        text = json.dumps(header).encode()
        weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no index":
        (folder / "model-2.safetensors").write_bytes(data)
        weights.rename(folder / "model-1.safetensors")
    elif kind == "pickle only":
        weights.rename(folder / "pytorch_model.bin")
    else:
        cut = {"truncated": data[:-3], "truncated header": data[:20], "extra data": data + b"more"}
        weights.write_bytes(cut[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no config", "config.json is missing"),
        ("config not json", "not readable JSON"),
        ("config a list", "not an object"),
        ("config binary", "not readable JSON"),
        ("no weights", "no weights"),
        ("no index", r"has 2 \.safetensors files \(first: model-1.safetensors\) but no model.safetensors.index.json"),
        ("pickle only", r"only pickle files \(pytorch_model.bin\), which are never opened"),
        ("truncated", "cut off"),
        ("truncated header", "header is cut off"),
        ("empty", "header is cut off"),
        ("extra data", "extra data"),
        ("unknown dtype", "tensor scalar .* dtype Q3_K"),
        ("overlap", "overlaps"),
        ("negative", "negative"),
        ("wrong size", "tensor scalar has 4 bytes for shape"),
        ("strange header", "bad header"),
        ("absent shard", "gone.safetensors, which is not in"),
        ("absent tensor", "says tensor gone is in model.safetensors"),
        ("escaping shard", r"no usable weight_map: it names \.\./model.safetensors, which is no file of its folder"),
        ("no weight map", "no usable weight_map"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, kind: str, message: str) -> None:
    damage(save_folder(tmp_path / "model"), kind)
    with pytest.raises(QuantizeError, match=message) as caught:
        open_checkpoint(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["9" * 5000, "1234567890", "²", "٢"])
def test_a_number_in_a_name_that_no_layer_has_is_refused(tmp_path: Path, number: str) -> None:
    folder = save_folder(tmp_path, {f"model.layers.{number}.x.weight": torch.ones(2, 2)})
    with pytest.raises(
        QuantizeError, match=r"tensor model.layers.* has a number in its name that no layer has"
    ) as caught:
        open_checkpoint(folder)
    assert len(str(caught.value)) < 500


def test_a_missing_folder_and_a_tensor_in_two_shards(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="is not a folder"):
        open_checkpoint(tmp_path / "nowhere")
    folder = save_folder(tmp_path / "model")
    save_file({"scalar": torch.ones(())}, folder / "second.safetensors")
    weight_map = {"scalar": "second.safetensors", "nothing": "model.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(QuantizeError, match=r"tensor scalar is in model.safetensors and in second.safetensors"):
        open_checkpoint(folder)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_escape_as_another_error(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "junk.safetensors"
    for data in (junk, len(junk).to_bytes(8, "little") + junk):
        file.write_bytes(data)
        try:
            read_header(file)
        except QuantizeError as error:
            assert "\n" not in str(error)

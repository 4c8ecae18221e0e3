"""Model folders of any size without their bytes: true headers and an index, and holes where the data would be."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SHARD_BYTES = 5_400_000_000

Shapes = dict[str, tuple[int, ...]]


def released_shapes(config: Mapping[str, Any]) -> Shapes:
    """Tensors of a mixture of experts as it is released, by name: experts one by one, MTP layers beyond the last.

    `config` is a config.json. An MTP layer has what the last layer has, two norms, and a projection.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(config)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    found: Shapes = {}
    for name, tensor in model.state_dict().items():
        head, _, last = name.rpartition(".")
        if head.endswith("experts") and last in ("gate_up_proj", "down_proj"):
            experts, rows, columns = tensor.shape
            parts = ("down_proj",) if last == "down_proj" else ("gate_proj", "up_proj")
            for number in range(experts):
                found |= {f"{head}.{number}.{part}.weight": (rows // len(parts), columns) for part in parts}
        else:
            found[name] = tuple(tensor.shape)
    depth, width = config["num_hidden_layers"], config["hidden_size"]
    last_layer = f"model.layers.{depth - 1}."
    for number in range(config.get("num_nextn_predict_layers", 0)):
        draft = f"model.layers.{depth + number}."
        found |= {n.replace(last_layer, draft): shape for n, shape in found.items() if n.startswith(last_layer)}
        found |= {f"{draft}eh_proj.weight": (width, 2 * width), f"{draft}enorm.weight": (width,)}
        found |= {f"{draft}hnorm.weight": (width,), f"{draft}shared_head.norm.weight": (width,)}
    return found


def write_hollow(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Write config.json, an index and bf16 shards of at most `SHARD_BYTES` of data, all zeros. Returns their bytes.

    Raises:
        OSError: the file system has no files of that size.
    """
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(_shards(shapes)):
        header: dict[str, Any] = {}
        position = 0
        for name in names:
            size = 2 * math.prod(shapes[name])
            offsets = [position, position + size]
            header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": offsets}
            position += size
        text, file = json.dumps(header).encode(), f"model-{number:05d}.safetensors"
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + position)
        weight_map |= dict.fromkeys(names, file)
        total += position
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total


def _shards(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    names: list[str] = []
    held = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        if names and held + size > SHARD_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names

"""What no machine holds at once: memory is that of one layer, an index is read once, a disk may fill at any time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import CALIBRATION, folder_bytes, save_tiny_llama
from tiny_moe import save_tiny_moe

from quantizers.checkpoint import INDEX_FILE, fingerprint, open_checkpoint
from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe
from quantizers.sources import open_source

PEAK = """
import sys
from pathlib import Path
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe

# One Linear a layer is quantized, for speed.
texts = Calibration(samples=4, length=32, file=Path(sys.argv[3]))
recipe = Recipe(name="w4a16", tune="none", calibration=texts, ignore=("lm_head", r"re:.*\\.(q|k|v|gate|up|down)_proj"))
quantize(Path(sys.argv[1]), recipe, Path(sys.argv[2]), device="cpu")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.long
@pytest.mark.parametrize("experts", [0, 8])
def test_memory_is_that_of_one_layer(tmp_path: Path, experts: int) -> None:
    """36 layers more are 42 MB more in bf16 (with experts 148), twice that in the float32 in which layers run."""
    (tmp_path / "text.txt").write_text(CALIBRATION, encoding="utf-8")
    peaks = []
    for layers in (4, 40):
        size: dict[str, Any] = {"hidden_size": 256, "num_hidden_layers": layers}
        model = (
            save_tiny_moe("qwen3_moe", tmp_path / f"m{layers}", **size, moe_intermediate_size=256, num_experts=experts)
            if experts
            else save_tiny_llama(tmp_path / f"m{layers}", **size, intermediate_size=512)
        )
        command = [sys.executable, "-c", PEAK, str(model), str(tmp_path / f"out{layers}"), str(tmp_path / "text.txt")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        assert ended.returncode == 0, ended.stderr[-500:]
        peaks.append(int(ended.stdout) / 1024)
    assert peaks[1] - peaks[0] < 25, f"{peaks} MiB"


def big_index(folder: Path, layers: int, shards: int) -> int:
    """A model folder of empty layers: `layers` x 12 tensors of four bytes in `shards` files. Returns their number."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    names = [f"model.layers.{i}.mlp.experts.{j}.up_proj.weight" for i in range(layers) for j in range(12)]
    weight_map: dict[str, str] = {}
    for number in range(shards):
        own = names[number::shards]
        header = {n: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, n in enumerate(own)}
        text, file = json.dumps(header).encode(), f"model-{number:05d}.safetensors"
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + bytes(4 * len(own)))
        weight_map |= dict.fromkeys(own, file)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    return len(names)


@pytest.mark.slow
def test_an_index_of_60_000_tensors_is_opened_with_one_read_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = big_index(tmp_path / "m", 5_000, 40)
    opened: Counter[str] = Counter()
    original = Path.open

    def counted(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened[self.name] += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counted)
    checkpoint = open_source(tmp_path / "m")
    assert len(checkpoint.tensors) == count == 60_000
    assert max(opened.values()) == 1 and len(opened) == 42  # config.json and the index
    opened.clear()
    fingerprint(checkpoint)
    assert opened.pop("config.json") <= 2 and max(opened.values()) == 1 and len(opened) <= 40


def test_an_index_that_names_absent_files_is_refused_before_any_is_read(tmp_path: Path) -> None:
    big_index(tmp_path / "m", 10, 4)
    for number in (2, 3):
        (tmp_path / "m" / f"model-0000{number}.safetensors").unlink()
    (tmp_path / "m" / "model-00001.safetensors").write_bytes(b"")
    with pytest.raises(QuantizeError, match=r"names model-00002.safetensors, which is not in .* \(nor are 1 others\)"):
        open_checkpoint(tmp_path / "m")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond `size` bytes: a write fails in its midst."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_write_that_fails_in_a_late_layer_is_named_and_gone_on_from(tmp_path: Path) -> None:
    """The last of four layers stays in bf16: its shard is the first file above the limit."""
    (tmp_path / "text.txt").write_text(CALIBRATION, encoding="utf-8")
    model = save_tiny_llama(tmp_path / "m", num_hidden_layers=4)
    recipe = Recipe(
        tune="none",
        name="w4a16",
        calibration=Calibration(samples=2, length=32, file=tmp_path / "text.txt"),
        ignore=("lm_head", r"re:model\.layers\.3\..*"),
    )
    whole = quantize(model, recipe, tmp_path / "whole", device="cpu")
    sizes = [(whole / f"model-0000{i}-of-00005.safetensors").stat().st_size for i in (1, 2, 3, 4)]
    assert sizes[0] == sizes[1] == sizes[2] < 50_000 < sizes[3]
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    for _ in range(2):  # as often as it is tried
        with (
            largest_file(50_000),
            pytest.raises(QuantizeError, match=r"cannot write .*model-00004-of-00005.*: File too"),
        ):
            quantize(model, recipe, out, device="cpu")
        assert not out.exists() and json.loads((partial / "state.json").read_text())["layers_done"] == 3
        written = sorted(p.name for p in (partial / "model").iterdir())
        assert written == [f"model-0000{i}-of-00005.safetensors" for i in (1, 2, 3)]  # and no .tmp
        assert [(partial / "model" / name).stat().st_size for name in written] == sizes[:3]
    done: list[int] = []
    quantize(model, recipe, out, device="cpu", progress=lambda s, d, t: done.append(d) if s == "layer" else None)
    assert done == [3, 4] and folder_bytes(out) == folder_bytes(whole) and not partial.exists()

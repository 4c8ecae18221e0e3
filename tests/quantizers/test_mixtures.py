"""Mixtures of experts that are not what they seem: named before work starts, and nothing is left behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_llama import folder_bytes
from tiny_moe import DRAFT, Change, edit, save_tiny_glm, save_tiny_moe

from quantizers import checkpoint as reading
from quantizers.checkpoint import INDEX_FILE, open_checkpoint, read_tensor
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.modeling import build
from quantizers.pipeline import USAGE_FILE, quantize
from quantizers.plan import make_plan
from quantizers.recipe import Calibration, Recipe

EXPERTS = "model.layers.1.mlp.experts"
UP = f"{EXPERTS}.3.up_proj"
ROUTER = "model.layers.1.mlp.gate"


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_glm(tmp_path_factory.mktemp("glm") / "glm-5")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_moe("qwen3_moe", tmp_path_factory.mktemp("qwen") / "qwen3-moe")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(name="w4a16", tune="none", calibration=Calibration(samples=4, length=16))


def refused(model: Path, recipe: Recipe, message: str) -> None:
    with pytest.raises(QuantizeError, match=message) as caught:
        quantize(model, recipe, model.parent / "out", device="cpu")
    assert "\n" not in str(caught.value) and not list(model.parent.glob("out*"))


CASES: dict[str, tuple[Change, str]] = {
    "first expert": (
        lambda w, c: [w.pop(n) for n in list(w) if n.startswith(f"{EXPERTS}.0.")],
        f"{EXPERTS}.0 has nothing in .*: get the complete model",
    ),
    "more chosen than there are": (
        lambda w, c: c.update(num_experts_per_tok=5),
        r"num_experts_per_tok 5, but model.layers.\d.mlp.experts are 4 experts: correct config.json",
    ),
    "none chosen": (lambda w, c: c.update(num_experts_per_tok=0), "num_experts_per_tok 0, but"),
    "one that no router knows": (
        lambda w, c: w.update({f"{EXPERTS}.4.up_proj.weight": w[f"{UP}.weight"]}),
        rf"tensor {EXPERTS}.4.up_proj.weight is stored in .*, but the model that config.json describes has no such",
    ),
    "a bias that no class adds": (
        lambda w, c: w.update({f"{UP}.bias": torch.ones(64)}),
        rf"tensor {UP}.bias is stored in .*, but the model that config.json describes has no such part",
    ),
    "stored twice": (
        lambda w, c: w.update({f"{EXPERTS}.down_proj": torch.ones(4, 64, 64)}),
        rf"tensor {EXPERTS}.0.down_proj.weight is stored, and {EXPERTS}.down_proj has it too: keep one",
    ),
    "a router of other experts": (
        lambda w, c: w.update({f"{ROUTER}.weight": torch.ones(3, 64)}),
        rf"tensor {ROUTER}.weight is \[3, 64\] but config.json asks for \[4, 64\]",
    ),
    "NaN": (
        lambda w, c: w[f"{UP}.weight"].view(-1)[77:78].fill_(float("nan")),
        rf"tensor {UP}.weight in .*model.safetensors holds NaN or infinity: get a sound copy",
    ),
}
OF_GLM: dict[str, tuple[Change, str]] = {
    "bias of choices": (
        lambda w, c: w.pop(f"{ROUTER}.e_score_correction_bias"),
        f"tensor {ROUTER}.e_score_correction_bias is missing",
    ),
    "shape of that bias": (
        lambda w, c: w.update({f"{ROUTER}.e_score_correction_bias": torch.ones(3)}),
        rf"tensor {ROUTER}.e_score_correction_bias is \[3\] but config.json asks for \[4\]",
    ),
    "an expert of the MTP layer": (
        lambda w, c: [w.pop(n) for n in list(w) if n.startswith(f"{DRAFT}mlp.experts.1.")],
        rf"tensor {DRAFT}mlp.experts.1.down_proj.weight of an MTP layer is missing in .*: get the complete model",
    ),
    "the last expert of the MTP layer": (
        lambda w, c: [w.pop(n) for n in list(w) if n.startswith(f"{DRAFT}mlp.experts.3.")],
        rf"tensor {DRAFT}mlp.experts.3.down_proj.weight of an MTP layer is missing",
    ),
    "a matrix of an MTP expert": (
        lambda w, c: w.pop(f"{DRAFT}mlp.experts.0.up_proj.weight"),
        rf"tensor {DRAFT}mlp.experts.0.up_proj.weight of an MTP layer is missing",
    ),
    "all matrices of the MTP layer": (
        lambda w, c: [w.pop(n) for n in list(w) if n.startswith(DRAFT) and w[n].ndim > 1],
        f"num_nextn_predict_layers 1, an MTP layer in no shard of .*: {DRAFT}",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["glm", "qwen"])
def test_what_is_wrong_is_named(kind: str, case: str, glm: Path, qwen: Path, tmp_path: Path, recipe: Recipe) -> None:
    change, message = CASES[case]
    model = shutil.copytree(glm if kind == "glm" else qwen, tmp_path / "model")
    refused(edit(model, change), recipe, message)


@pytest.mark.parametrize("case", OF_GLM)
def test_what_is_wrong_with_a_glm_is_named(case: str, glm: Path, tmp_path: Path, recipe: Recipe) -> None:
    change, message = OF_GLM[case]
    refused(edit(shutil.copytree(glm, tmp_path / "model"), change), recipe, message)


def test_an_index_larger_than_memory_is_not_read(tmp_path: Path, qwen: Path, recipe: Recipe) -> None:
    """A hole of 4 TB, as large as it says, and more than any machine reads."""
    model = shutil.copytree(qwen, tmp_path / "model")
    with (model / INDEX_FILE).open("wb") as stream:
        stream.truncate(4 << 40)
    refused(model, recipe, rf"{INDEX_FILE} has 4.4e\+03 GB, and no index or config is as large: download it again")
    assert reading.LARGEST_JSON > 30 * 6_000_000  # thirty times that of GLM-5.2


@pytest.mark.parametrize("kept", [rf"re:{EXPERTS}\.3\..*", rf"re:{EXPERTS}\..*down_proj"], ids=["an expert", "down"])
def test_servers_take_all_experts_of_a_layer_or_none(qwen: Path, tmp_path: Path, recipe: Recipe, kept: str) -> None:
    model = shutil.copytree(qwen, tmp_path / "model")
    some = recipe.model_copy(update={"ignore": (*recipe.ignore, kept)})
    refused(model, some, rf"the recipe ignores {EXPERTS}\.\d.\w+ but not {EXPERTS}.\d.\w+: servers hold all experts of")
    checkpoint = open_checkpoint(model)
    whole = some.model_copy(update={"ignore": (*recipe.ignore, rf"re:{EXPERTS}\..*")})
    for sound in (some.model_copy(update={"tier": "vq2"}), whole):
        assert make_plan(checkpoint, build(checkpoint), sound).schemes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["glm", "qwen"])
def test_a_router_that_sends_everything_to_one_expert_is_told_of(
    kind: str, glm: Path, qwen: Path, tmp_path: Path, recipe: Recipe
) -> None:
    def collapse(weights: dict[str, torch.Tensor], config: dict[str, object]) -> None:
        config["num_experts_per_tok"] = 1
        if kind == "glm":
            weights[f"{ROUTER}.e_score_correction_bias"] = torch.tensor([0.0, 0.0, 50.0, 0.0])
        else:
            weights[f"{ROUTER}.weight"].zero_()

    model = edit(shutil.copytree(glm if kind == "glm" else qwen, tmp_path / "model"), collapse)
    made = quantize(model, recipe, tmp_path / "made", device="cpu")
    counts = json.loads((made / USAGE_FILE).read_text())[EXPERTS]
    assert sorted(counts) == [0, 0, 0, 64]
    card = (made / "README.md").read_text()
    unseen = [number for number, count in enumerate(counts) if not count]
    assert all(f"`{EXPERTS}.{number}`" in card for number in unseen)
    before, after = (open_checkpoint(path).tensors for path in (model, dequantize(made, tmp_path / "plain")))
    for name in [name for name in before if name.startswith(EXPERTS)]:
        weight, found = read_tensor(before[name]).float(), read_tensor(after[name]).float()
        assert 0 < float((weight - found).norm() / weight.norm()) < 0.25, name


# -- a disk that is full, and a process that is gone ---------------------------------------------------------

PROGRAM = """
import os, signal, sys
from pathlib import Path
from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe

model, out, stage, count = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
recipe, seen = Recipe(name="w4a16", tune="none", calibration=Calibration(samples=4, length=16)), [0]
filler = out.parent / "filler"

def killed(at, done, total):
    seen[0] += at == stage
    if seen[0] == count:
        os.kill(os.getpid(), signal.SIGKILL)

def filled(at, done, total):
    if at == stage and done == count:
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(4096))
            except OSError:
                pass
"""
KILLED = "quantize(model, recipe, out, device='cpu', progress=killed)"
FILLED = """
try:
    quantize(model, recipe, out, device="cpu", progress=filled)
except QuantizeError as error:
    print(error)
assert [entry.name for entry in out.parent.iterdir() if entry != filler] == ["out.partial"]
assert not list(out.parent.rglob("*.tmp"))
filler.unlink()
quantize(model, recipe, out, device="cpu")
(Path(sys.argv[5])).mkdir()
for file in out.iterdir():
    (Path(sys.argv[5]) / file.name).write_bytes(file.read_bytes())
"""


def run(program: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", PROGRAM + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.long
def test_kills_in_any_stage_of_a_mixture_with_a_draft_head_change_no_byte(
    glm: Path, tmp_path: Path, recipe: Recipe
) -> None:
    expected, out = quantize(glm, recipe, tmp_path / "whole", device="cpu"), tmp_path / "out"
    for stage, count in (("columns", 12), ("outputs", 1), ("copy", 1)):
        ended = run(KILLED, glm, out, stage, count)
        assert ended.returncode == -9, f"{stage} {count}: {ended.stderr[-500:]}"
        assert not out.exists()
    quantize(glm, recipe, out, device="cpu")
    assert folder_bytes(out) == folder_bytes(expected)


@pytest.mark.soak
def test_a_disk_that_is_full_in_the_midst_of_a_layer_is_gone_on_from(glm: Path, tmp_path: Path, recipe: Recipe) -> None:
    """A small disk of its own, in a name space that ends with the process."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=2m none {disk} && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*mounted, "true"], check=False).returncode:
        pytest.skip("no disk of its own can be mounted here")
    expected, copy = quantize(glm, recipe, tmp_path / "whole", device="cpu"), tmp_path / "copy"
    ended = run(FILLED, glm, disk / "out", "layer", 1, copy, before=mounted)
    assert ended.returncode == 0, ended.stderr[-500:]
    said = (
        rf"cannot write {disk}/out.partial/\S+: No space left on device: free space or choose another place, then\b.*\n"
    )
    assert re.fullmatch(said, ended.stdout), ended.stdout
    assert folder_bytes(copy) == folder_bytes(expected)

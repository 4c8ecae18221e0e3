"""`quantgate serve` without a role: what the model's files and the GPUs say becomes flags of one vLLM."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coded_folders import save_coded
from command_line import Quantgate

from harness.contract.errors import BadInput
from harness.serving import hardware
from harness.serving.hardware import Gpu, Hardware
from harness.serving.launch import Launch, plan_launch, ranks_for

CPU = Hardware(processor="test", cpus=[0, 1], memory_gib=64, free_gib=32, gpus=[])
GLM = {
    "model_type": "glm_moe_dsa", "num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "num_nextn_predict_layers": 1,
}  # fmt: skip


def with_gpus(count: int) -> Hardware:
    return replace(CPU, gpus=[Gpu(str(i), "H200", 139.0, 138.0) for i in range(count)])


def value(launch: Launch, flag: str) -> str | None:
    return launch.command[launch.command.index(flag) + 1] if flag in launch.command else None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A GLM with a draft head whose o_proj has 512 inputs in groups of 128."""
    folder = tmp_path / "GLM-tiny"
    linears = {"model.layers.0.self_attn.o_proj": ("vq2", 128, 512), "model.layers.2.eh_proj": ("plain", 64, 64)}
    save_coded(folder, linears, GLM)
    (folder / "chat_template.jinja").write_text("<think></think> {{ tools }}")
    return folder


def test_what_a_start_script_would_say(model: Path) -> None:
    found = plan_launch(model, with_gpus(4), more=["--max-num-seqs", "8"])
    assert (found.url, found.name) == ("http://127.0.0.1:8001/v1", "GLM-tiny")
    assert value(found, "--served-model-name") == "GLM-tiny" and value(found, "--max-model-len") == "auto"
    assert (value(found, "--tensor-parallel-size"), value(found, "--port")) == ("4", "8001")
    assert (value(found, "--reasoning-parser"), value(found, "--tool-call-parser")) == ("glm45", "glm47")
    assert json.loads(value(found, "--speculative-config") or "") == {"method": "mtp", "num_speculative_tokens": 1}
    assert found.command[-2:] == ["--max-num-seqs", "8"] and "--enforce-eager" not in found.command
    other = plan_launch(model, CPU, host="0.0.0.0", port=9000, name="mine")
    assert (other.url, other.name) == ("http://127.0.0.1:9000/v1", "mine")
    assert value(other, "--host") == "0.0.0.0" and value(other, "--tensor-parallel-size") == "1"
    assert "--enforce-eager" in other.command and other.environment["VLLM_CPU_KVCACHE_SPACE"] == "8"


def test_what_a_model_has_not_is_not_asked_for(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))  # of layer 3 nothing is stored
    found = plan_launch(model, CPU)
    for flag in ("--reasoning-parser", "--tool-call-parser", "--speculative-config", "--enable-auto-tool-choice"):
        assert flag not in found.command


@pytest.mark.parametrize(
    ("gpus", "changed", "ranks"),
    [
        (1, {}, 1), (2, {}, 2), (3, {}, 2), (8, {}, 4),  # four groups of inputs
        (8, {"num_attention_heads": 6}, 2), (8, {"num_key_value_heads": 3}, 1),
        (8, {"num_key_value_heads": None, "num_attention_heads": None}, 4),
    ],
)  # fmt: skip
def test_gpus_are_those_that_heads_and_groups_split_over(
    model: Path, gpus: int, changed: dict[str, Any], ranks: int
) -> None:
    config = json.loads((model / "config.json").read_text()) | changed
    (model / "config.json").write_text(json.dumps(config))
    assert ranks_for(model, config, gpus) == ranks


def test_damaged_codes_are_refused_before_vllm_is_started(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BadInput, match="is cut off"):
        plan_launch(model, CPU)


def test_the_command_becomes_vllm(model: Path, quantgate: Quantgate, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(hardware, "detect", lambda: CPU)
    monkeypatch.setattr("os.execve", lambda *given: became.append(given))
    status, out, _ = quantgate("serve", str(model), "--name", "mine", "--", "--max-num-seqs", "8")
    assert status == 0 and out.startswith("mine: http://127.0.0.1:8001/v1 when vLLM is ready; Ctrl-C ends it\n")
    program, command, environment = became[0]
    assert program == command[0] and command[1:4] == ["-m", "vllm.entrypoints.cli.main", "serve"]
    assert command[-2:] == ["--max-num-seqs", "8"] and environment["DO_NOT_TRACK"] == "1"

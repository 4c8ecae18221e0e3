"""The last steps of a gate: the manifest is whole before the report, which is rendered once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer
from jobs import finish, make_job
from safetensors.numpy import save_file

from harness.checkpoint.models import describe, resolve_model
from harness.contract.errors import BadInput, RunFailed
from harness.contract.policy import load_policy
from harness.contract.samples import Role
from harness.gate import pipeline
from harness.gate.quantization import quantize_model, quantized
from harness.runs.folder import RunFolder
from harness.runs.manifest import Stage
from harness.runs.progress import Reporter


def test_the_report_is_rendered_once_when_it_is_known_where_the_time_went(
    servers: dict[Role, FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finish(make_job(tmp_path / "run"), servers).run
    rendered: list[list[Stage]] = []

    def render(found: RunFolder, single_file: bool = False) -> Path:
        rendered.append(found.manifest().stages)
        return found.report_path / "index.html"

    monkeypatch.setattr(pipeline, "render_run", render)
    monkeypatch.setattr(pipeline, "_models", lambda *_: {})
    monkeypatch.setattr(pipeline, "make_suites", lambda *_: [])
    reporter = Reporter()
    with reporter.stage("models"):
        pass
    pipeline.run_gate(pipeline.GateOptions("m", out=run.path, resume=True), reporter)
    assert rendered == [run.manifest().stages]
    told = [stage.name for stage in reporter.stages]
    assert told[0] == "models" and told[-1] == "report"
    assert [stage.name for stage in rendered[0]] == told[:-1]


def test_a_folder_that_only_calls_itself_quantized_is_neither_quantized_nor_gated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "_name_or_path": "owner/stale"}))
    (model / "README.md").write_text("---\nbase_model: owner/base\ntags: [awq]\n---\n")
    save_file({"model.layers.0.q_proj.weight": np.zeros((8, 8), np.float16)}, model / "model.safetensors")
    monkeypatch.setattr(pipeline, "quantized", lambda *_: pytest.fail("it was quantized"))
    options = pipeline.GateOptions(str(model), policy="demo", out=tmp_path / "run")
    monkeypatch.setattr(pipeline, "make_suites", lambda *_: [])
    with pytest.raises(BadInput, match=r'card: tags says "awq", but its config.json has no quantization_config'):
        pipeline.run_gate(options, Reporter())
    with pytest.raises(BadInput, match='card: tags says "awq"'):
        quantize_model(model, "w4a16", tmp_path / "out", Reporter())
    assert not (tmp_path / "out").exists()


def test_no_reference_is_guessed_from_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.mkdir()
    config = {"model_type": "llama", "_name_or_path": "owner/stale", "quantization_config": {"quant_method": "gptq"}}
    (model / "config.json").write_text(json.dumps(config))
    save_file({"model.layers.0.q_proj.weight": np.zeros((8, 8), np.float16)}, model / "model.safetensors")
    monkeypatch.setattr(pipeline, "make_suites", lambda *_: [])
    with pytest.raises(BadInput, match=r"is unknown \(no base_model in its card\): give --reference"):
        pipeline.run_gate(pipeline.GateOptions(str(model), policy="demo", out=tmp_path / "run"), Reporter())


def test_a_resumed_run_has_its_reference_without_being_told_and_without_the_hub(
    servers: dict[Role, FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(name: str, value: int, **config: object) -> Path:
        model = tmp_path / name
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
        save_file({"model.layers.0.q_proj.weight": np.full((8, 8), value, np.float16)}, model / "model.safetensors")
        return model

    def offline(name: str, say: object) -> Path:
        if name == "owner/original":
            raise RunFailed("the hub is not there")
        return resolve_model(name)

    original, other = folder("original", 1), folder("other", 2)
    candidate = folder("candidate", 3, quantization_config={"quant_method": "gptq"})  # no card: no base_model
    models = {"reference": describe("owner/original", original), "candidate": describe(str(candidate), candidate)}
    run = finish(make_job(tmp_path / "run", models=models), servers).run
    monkeypatch.setattr(pipeline, "render_run", lambda run, single_file=False: run.report_path / "index.html")
    monkeypatch.setattr(pipeline, "make_suites", lambda *_: [])
    monkeypatch.setattr(pipeline, "resolve_model", offline)

    again = pipeline.GateOptions(str(candidate), out=run.path, resume=True)
    pipeline.run_gate(again, Reporter())
    with pytest.raises(BadInput, match="the reference is not the checkpoint this run was begun with"):
        pipeline.run_gate(replace(again, reference=str(other)), Reporter())
    original.rename(tmp_path / "moved")
    with pytest.raises(RunFailed, match="the hub is not there"):
        pipeline.run_gate(again, Reporter())
    pipeline.run_gate(replace(again, reference=str(tmp_path / "moved")), Reporter())


def test_codes_that_no_server_here_can_serve_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"model.layers.0.q_proj.weight": np.zeros((8, 8), np.float16)}, model / "model.safetensors")
    recipe = tmp_path / "two.yaml"
    recipe.write_text("name: two\ntier: int2\n")
    with pytest.raises(BadInput, match="recipe two: vLLM serves no integers of 2 bits; take vq2 or trellis2, or gate"):
        quantized(model, str(recipe), Reporter())
    (model / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "quantgate"}})
    )
    monkeypatch.setattr(pipeline, "make_suites", lambda *_: [])
    options = pipeline.GateOptions(str(model), reference=str(model), policy="demo", out=tmp_path / "run")
    with pytest.raises(BadInput, match=r"format_version None in config\.json is none"):
        pipeline.run_gate(options, Reporter())
    again = pipeline.GateOptions(str(model), reference=str(model), out=tmp_path / "run", recipe="mixed")
    with pytest.raises(BadInput, match="model is not quantized here: leave out --recipe, --bits and --bytes"):
        pipeline.run_gate(again, Reporter())


@pytest.mark.parametrize("asked", [True, False])
def test_block_fp8_is_the_reference_where_a_recipe_is_asked_for_and_the_candidate_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    model = tmp_path / "model-FP8"
    model.mkdir()
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": settings}))
    save_file({"model.layers.0.q_proj.weight": np.zeros((8, 8), np.float16)}, model / "model.safetensors")
    (model / "README.md").write_text("---\nbase_model_relation: quantized\n---\n")
    made: list[tuple[Path, str]] = []

    def quantized(given: Path, recipe: str, *_: object) -> Path:
        made.append((given, recipe))
        raise BadInput("far enough")

    monkeypatch.setattr(pipeline, "quantized", quantized)
    monkeypatch.setattr(pipeline, "make_suites", lambda *_: [])
    recipe = "w4a16" if asked else None
    options = pipeline.GateOptions(str(model), policy="demo", out=tmp_path / "run", recipe=recipe)
    with pytest.raises(BadInput, match="far enough" if asked else "give --reference"):
        pipeline.run_gate(options, Reporter())
    assert made == ([(model, "w4a16")] if asked else [])


def test_a_model_in_16_bits_with_a_reference_is_gated_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dequantize` leaves it: quantized once more, the verdict would be on something else."""
    folders = [tmp_path / "original", tmp_path / "plain"]
    for value, folder in enumerate(folders):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        save_file({"model.layers.0.q_proj.weight": np.full((8, 8), value, np.float16)}, folder / "model.safetensors")
    original, plain = map(str, folders)
    made: list[Path] = []

    def quantized(given: Path, *_: object) -> Path:
        made.append(given)
        return folders[1]

    monkeypatch.setattr(pipeline, "quantized", quantized)
    run, sealed = RunFolder(tmp_path / "run"), load_policy("demo")

    def candidate(options: pipeline.GateOptions) -> str:
        return pipeline._models(options, run, sealed, Reporter())["candidate"].name

    options = pipeline.GateOptions(plain, reference=original)
    assert candidate(options) == plain and not made
    for own in (replace(options, model=original), replace(options, model=original, reference=None)):
        assert candidate(own) == f"{original} {sealed.policy.recipe}"
    assert candidate(replace(options, model=plain, recipe="w4a16", reference=original)) == f"{plain} w4a16"
    assert made == [folders[0], folders[0], folders[1]]

    facts = pipeline._models(options, run, sealed, Reporter())
    pipeline._manifest(options, run, sealed, facts)
    again = replace(options, reference=None, resume=True)
    assert pipeline._models(again, run, sealed, Reporter()) == facts

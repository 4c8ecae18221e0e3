"""The commands that make and undo checkpoints; harness/commands.py gives them their names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.contract.policy import load_policy
from harness.runs.progress import Reporter
from harness.terminal import console

Bits = Annotated[
    float | None, typer.Option(help="Mean bits of a quantized weight, for a recipe that leaves tiers open (mixed).")
]
Bytes = Annotated[str | None, typer.Option("--bytes", help="The same as a size of the whole checkpoint: 167GiB.")]
Model = Annotated[str, typer.Argument(help="'demo', a checkpoint folder, or a hub id (owner/name).")]
ServedBy = Annotated[str, typer.Option("--policy", help="How MODEL is served where the recipe asks for traces of it.")]


def quantize(
    model: Model,
    recipe: Annotated[
        str,
        typer.Option(
            help="A recipe's name (w4a16, w4a16-fast, w4a16-folded, fp8-block, vq-2bit, trellis-2bit, mixed, "
            "glm-5.2-mixed, glm-5.2-w4a16-mtp) or a YAML file."
        ),
    ] = "w4a16",
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")] = ...,  # type: ignore[assignment]
    bits: Bits = None,
    size: Bytes = None,
    policy: ServedBy = "demo",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda (all GPUs of this machine: the default, if any) or one, as cuda:0.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="auto|ADDRESS", help="Encode on the machines of a Ray cluster.")
    ] = None,
) -> None:
    """Quantize MODEL by a recipe. Run again to go on after an interruption."""
    from harness.checkpoint.models import resolve_model
    from harness.gate.mixing import Size
    from harness.gate.quantization import quantize_model

    reporter = Reporter()
    served = load_policy(policy).policy
    path = resolve_model(model, reporter.say)
    print(quantize_model(path, recipe, out, reporter, served, Size(bits, size), device, ray))


def measure_tiers(
    model: Model,
    out: Annotated[Path, typer.Option(help="JSON file of the damages, to read, edit and choose by.")],
    recipe: Annotated[str, typer.Option(help="Its calibration, and what it leaves out.")] = "mixed",
    tiers: Annotated[str | None, typer.Option(help="vq1,vq2,int8,kept: instead of the recipe's own.")] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Of the calibration, evenly over its kinds.")] = 8,
    policy: ServedBy = "demo",
) -> None:
    """Measure what each tier costs: the KL of the whole model when one group of Linears alone has it."""
    from harness.checkpoint.models import resolve_model
    from harness.gate.mixing import measure_model

    reporter = Reporter()
    served = load_policy(policy).policy
    path = resolve_model(model, reporter.say)
    names = None if tiers is None else [name.strip() for name in tiers.split(",")]
    measure_model(path, recipe, names, out, sequences, reporter, served)
    print(out)


def choose_tiers(
    damage: Annotated[Path, typer.Argument(help="A file that measure-tiers made.")],
    out: Annotated[Path, typer.Option(help="YAML file of the recipe, to read, edit and quantize by.")],
    bits: Bits = None,
    size: Bytes = None,
    weight: Annotated[list[str] | None, typer.Option(help="What a kind of text counts, ja=2; again for more.")] = None,
    correct: Annotated[
        str | None, typer.Option(help="The MODEL: measure the choice on it, and correct it once.")
    ] = None,
    policy: ServedBy = "demo",
) -> None:
    """Choose the tier of each group of Linears so that the damages' sum is small, and write the recipe."""
    from harness.checkpoint.models import resolve_model
    from harness.gate.mixing import Size, choose_recipe

    reporter = Reporter()
    served = load_policy(policy).policy
    model = resolve_model(correct, reporter.say) if correct else None
    print(choose_recipe(damage, Size(bits, size), weight or [], out, model, reporter, served))
    print(out)


def plan(
    model: Annotated[Path, typer.Argument(help="A folder with a config.json, or the file; weights are not needed.")],
    bits: Annotated[
        float | None, typer.Option(help="Mean bits of a routed expert's weight, or of any Linear's.")
    ] = None,
    size: Bytes = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name or a YAML file; one with a mix needs a size.")
    ] = None,
    rest: Annotated[
        int | None, typer.Option(help="Bits of attention, shared experts and dense layers: 16 (default) or 8.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens of a sequence; default: the model's longest, at most 131072.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the tables.")] = False,
) -> None:
    """Say how large a quantized MODEL would be, what making it takes and which GPUs hold it, from its config.json."""
    from harness.gate.mixing import Size
    from harness.gate.sizing import card_table, part_table, plan_lines, plan_sizes, to_json

    made = plan_sizes(model, Size(bits, size), recipe, rest, context)
    if as_json:
        print(to_json(made))
        return
    output = console()
    for line in plan_lines(made):
        output.print(line)
    output.print()
    output.print(part_table(made))
    output.print()
    output.print(card_table(made))
    output.print()
    for note in made.notes:
        output.print(f"- {note}", markup=False)


def traces(
    model: Model,
    out: Annotated[Path, typer.Option(help="File of the traces, one JSON line each, for a recipe's calibration.")],
    count: Annotated[int, typer.Option(min=1, max=65536, help="Answers to keep.")] = 64,
    policy: Annotated[str, typer.Option(help="How MODEL is served: a shipped policy's name or a YAML file.")] = "demo",
    max_tokens: Annotated[int, typer.Option(min=1, help="Budget of one answer, thinking included.")] = 4096,
) -> None:
    """Have MODEL answer prompts in several languages, and keep the answers that it ended itself."""
    if out.suffix != ".jsonl" or out.is_dir():
        raise typer.BadParameter(f"--out {out}: a recipe's calibration takes traces from a file that ends in .jsonl")
    reporter = Reporter()
    with reporter.stage("start"):
        from harness.checkpoint.models import resolve_model
        from harness.gate.recipes import make_parent
        from harness.gate.traces import write_traces
    make_parent(out)
    path = resolve_model(model, reporter.say)
    traces = write_traces(path, model, out, count, load_policy(policy).policy, reporter, max_tokens=max_tokens)
    print(traces.summary())
    print(out)


def dequantize(
    folder: Annotated[Path, typer.Argument(help="A codebook checkpoint that quantgate made.")],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
) -> None:
    """Turn a codebook checkpoint back into bf16, to serve it where the codes cannot be served."""
    from harness.gate.quantization import dequantize_model

    print(dequantize_model(folder, out))

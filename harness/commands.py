"""The commands: each says what is wanted, prints what came of it and ends with the designed exit code."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import __version__, power_command, quantizer_commands, report_commands
from harness.contract.errors import BadInput
from harness.contract.policy import load_policy
from harness.contract.samples import ROLES
from harness.judging.verdict import EXIT_CODES
from harness.quantizer_commands import Bits, Bytes, Model
from harness.report_commands import SingleFile
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from harness.terminal import closing_line, console, print_verdict

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Decide whether a quantized model may be published. Exit codes: 0 PASS, 1 FAIL, 2 INCONCLUSIVE, "
    "3 not comparable or bad input, 4 the run itself failed.",
)
MOST_LOSS = 0.5
"""From here on --max-loss was meant in points: half of all answers lost is no margin that anybody wants kept."""


def _version(asked: bool) -> None:
    if asked:
        print(f"quantgate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """quantgate."""
    if debug:
        os.environ["QUANTGATE_DEBUG"] = "1"


@app.command()
def gate(
    model: Model = "demo",
    reference: Annotated[
        str | None, typer.Option(help="What to compare MODEL with as it stands; default: base_model of its card.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="A shipped policy's name or a YAML file; default: demo.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/<time>-<model>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    candidate_url: Annotated[str | None, typer.Option(help="Attach to this server instead of starting one.")] = None,
    reference_url: Annotated[str | None, typer.Option(help="Attach to this server instead of starting one.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="An earlier run: its reference samples are used again if nothing has changed.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="How MODEL is quantized; default: the policy's recipe.")] = None,
    bits: Bits = None,
    size: Bytes = None,
    single_file: SingleFile = False,
) -> None:
    """Quantize MODEL if needed, serve it beside its reference, run the suites, judge, report."""
    reporter = Reporter()
    with reporter.stage("start"):  # torch, transformers and lm-eval take their time on a cold disk
        from harness.gate.mixing import Size
        from harness.gate.pipeline import GateOptions, run_gate
    options = GateOptions(
        model=model,
        reference=reference,
        policy=policy,
        out=out,
        resume=resume,
        candidate_url=candidate_url,
        reference_url=reference_url,
        baseline=baseline,
        single_file=single_file,
        recipe=recipe,
        size=Size(bits, size),
    )
    run, verdict = run_gate(options, reporter)
    print_verdict(verdict, run)
    print(closing_line(verdict, sum(stage.seconds for stage in reporter.stages)))
    reporter.print_times()
    print(f"report: {run.report_path / 'index.html'}")
    raise typer.Exit(EXIT_CODES[verdict.verdict])


app.command("power")(power_command.power_command)
app.command()(quantizer_commands.quantize)
app.command()(quantizer_commands.measure_tiers)
app.command()(quantizer_commands.choose_tiers)
app.command()(quantizer_commands.plan)
app.command()(quantizer_commands.traces)
app.command()(quantizer_commands.dequantize)


@app.command("judge")
def judge_command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    policy: Annotated[str | None, typer.Option(help="Another policy; the result is marked as after the fact.")] = None,
) -> None:
    """Decide again on a stored run and render its report. No server is needed."""
    from harness.gate.pipeline import judge_run, render_run

    folder = RunFolder(run)
    verdict = judge_run(folder, load_policy(policy) if policy else None)
    index = render_run(folder)
    print_verdict(verdict, folder)
    print(f"report: {index}")
    raise typer.Exit(EXIT_CODES[verdict.verdict])


@app.command("compare")
def compare_command(
    reference: Annotated[Path, typer.Argument(help="A folder of lm-eval, a report of swebench, or a run folder.")],
    candidate: Annotated[Path, typer.Argument(help="The same of the other model.")],
    max_loss: Annotated[
        float | None, typer.Option(min=0, help="Largest allowed loss of each task and group; 0.01 is one point.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="In place of --max-loss: a YAML file of what must hold.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="A metric of lm-eval; default: as its leaderboards choose, for each task.")
    ] = None,
    per_task: Annotated[
        bool, typer.Option("--per-task", help="Judge each task of a group (mmlu, leaderboard …) by itself.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="A new folder for the report of a gate run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Judge results made elsewhere: of lm-eval (--log_samples), of swebench, or the candidates of two runs."""
    from harness.offline.compare import compare, to_json
    from harness.offline.compare_policy import policy_of
    from harness.offline.compare_report import require_free, write_report

    if (max_loss is None) == (policy is None):
        raise typer.BadParameter("give --max-loss (0.01 is one point) or --policy FILE, one of them")
    if max_loss is not None and not max_loss < MOST_LOSS:
        raise typer.BadParameter(f"--max-loss {max_loss:g} is {100 * max_loss:g} points; write 0.01 for one point")
    if report is not None:
        require_free(report)
    given = load_policy(policy) if policy is not None else policy_of(max_loss or 0.0)
    found = compare(reference, candidate, given, metric=metric, per_task=per_task, texts=report is not None)
    page = None
    if report is not None:
        named = {"--max-loss": max_loss, "--policy": policy, "--metric": metric}
        options = [str(word) for name, value in named.items() if value is not None for word in (name, value)]
        page = write_report(report, found, reference, candidate, [*options, *(["--per-task"] if per_task else [])])
    if as_json:
        print(to_json(found))
    else:
        print_verdict(found.verdict)
        for note in found.notes:
            console().print(f"warning: {note}", markup=False)
        if page is not None:
            print(f"report: {page}")
    raise typer.Exit(EXIT_CODES[found.verdict.verdict])


app.command()(report_commands.report)
app.command()(report_commands.card)
app.command()(report_commands.history)
app.command()(report_commands.export)


@app.command("prove")
def prove_command(
    policy: Annotated[str, typer.Option(help="A shipped policy's name or a YAML file.")] = "prove",
    model: Annotated[str, typer.Option(help="The good model: 'demo', a checkpoint folder, or a hub id.")] = "demo",
    only: Annotated[list[str] | None, typer.Option(help="An entry of the catalogue, or 'quick' for six.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the proof and of its runs.")] = Path("runs/prove"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the proof in --out.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Gates at a time, each with its share of the cores.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="How many times all is done, each with another seed.")] = 1,
    weakest: Annotated[bool, typer.Option("--weakest", help="Bisect for the weakest dose that is caught.")] = False,
) -> None:
    """Damage MODEL in known ways and gate each: would POLICY catch it? Ends with 0 where all was as it must be."""
    reporter = Reporter()
    with reporter.stage("start"):
        from harness.prove.document import summary
        from harness.prove.run import ProveOptions, prove
    proof = prove(ProveOptions(model, policy, out, tuple(only or ()), resume, jobs, seeds, weakest), reporter)
    for finding in proof.findings:
        print(f"{finding.status:17}{finding.name:20}stated {finding.expected}; {finding.reason[:160]}")
    print(f"{summary(proof)}\nproof: {out / 'index.html'}")
    raise typer.Exit(0 if proof.holds else 1)


@app.command()
def serve(
    model: Model,
    more: Annotated[list[str] | None, typer.Argument(help="Further flags of `vllm serve`, after --.")] = None,
    role: Annotated[str | None, typer.Option(help="Serve as the gate would: candidate or reference.")] = None,
    policy: Annotated[str | None, typer.Option(help="Whose settings the gate would take; default: demo.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8001,
    name: Annotated[str | None, typer.Option(help="Under which it is served; default: the folder's.")] = None,
) -> None:
    """Serve MODEL by vLLM until Ctrl-C, with context, parsers, drafts and GPUs by its files and this machine.

    With --role or --policy: with the very flags the gate would use for this role.
    """
    from harness.checkpoint.models import resolve_model

    if role is not None or policy is not None:
        _serve_role(model, role or "reference", policy or "demo")
        return
    from harness.serving.hardware import detect
    from harness.serving.launch import plan_launch

    launch = plan_launch(resolve_model(model), detect(), host=host, port=port, name=name, more=more or [])
    print(f"{launch.name}: {launch.url} when vLLM is ready; Ctrl-C ends it\n{shlex.join(launch.command)}", flush=True)
    os.execve(launch.command[0], launch.command, {**os.environ, **launch.environment})


def _serve_role(model: str, role: str, policy: str) -> None:
    from harness.checkpoint.models import resolve_model
    from harness.contract.whole_files import cache_folder
    from harness.serving.flags import plan_servers
    from harness.serving.hardware import detect
    from harness.serving.servers import serve as start

    _require_role(role)
    reporter = Reporter()
    serving, path = load_policy(policy).policy.serving, resolve_model(model, reporter.say)
    paths = dict.fromkeys(ROLES, path)  # both, so that this role gets its share of the machine and no more
    plan = next(p for p in plan_servers(serving, paths, detect(), "serve") if p.role == role)
    logs = cache_folder() / "serve"
    with ExitStack() as servers:
        with reporter.stage("server", 1) as meter:
            (server,) = servers.enter_context(start([plan], logs, serving.ready_timeout_seconds, meter))
        print(f"{role}: {plan.url}/v1 (log: {server.log}); Ctrl-C ends it", flush=True)
        while server.alive():
            time.sleep(0.5)
        raise server.failure("ended")


@app.command("items")
def items_command(
    suite: Annotated[str, typer.Argument(help="A suite of the policy.")],
    out: Annotated[Path, typer.Option(help="File of the items, one JSON line each.")],
    model: Annotated[
        str, typer.Option(help="Whose tokenizer counts: 'demo', a checkpoint folder or a hub id.")
    ] = "demo",
    policy: Annotated[str, typer.Option(help="A shipped policy's name or a YAML file.")] = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Write what SUITE would ask, as a gate run would, and say what it costs in tokens. No server is needed."""
    reporter = Reporter()
    with reporter.stage("start"):
        from harness.offline.costs import item_table, make_item_file, to_json
    made = make_item_file(suite, model, load_policy(policy), out, reporter)
    if as_json:
        print(to_json(made))
        return
    console().print(item_table(made))
    print(f"items: {out} (sha256 {made.sha256[:12]})")
    if made.thinking_opened:
        print("the chat template opens the thinking: score the answers with --thinking-opened")


@app.command("score")
def score_command(
    suite: Annotated[str, typer.Argument(help="The suite that made the items.")],
    items: Annotated[Path, typer.Argument(help="A file of `quantgate items`, or RUN/items/SUITE.jsonl.")],
    answers: Annotated[Path, typer.Argument(help="One JSON object a line: item, text and what else is known.")],
    policy: Annotated[str | None, typer.Option(help="Default: the run's own, else demo.")] = None,
    role: Annotated[str, typer.Option(help="candidate or reference.")] = "candidate",
    out: Annotated[Path | None, typer.Option(help="File of the samples, one JSON line each.")] = None,
    thinking_opened: Annotated[
        bool, typer.Option("--thinking-opened", help="The chat template opens the thinking: texts begin inside it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Score ANSWERS to ITEMS that were made elsewhere, as the gate scores them. No server is needed."""
    _require_role(role)
    reporter = Reporter()
    with reporter.stage("start"):
        from harness.offline.scoring import offline_score_table, score_answers, score_notes, to_json
    sealed = load_policy(policy) if policy else None
    options: dict[str, Any] = {"role": role, "out": out, "thinking_opened": thinking_opened}
    scores = score_answers(suite, items, answers, reporter, sealed=sealed, **options)
    if as_json:
        print(to_json(scores))
        return
    console().print(offline_score_table(scores))
    for note in score_notes(scores):
        print(note)


@app.command("doctor")
def doctor_command(
    policy: Annotated[str | None, typer.Option(help="Only what this policy needs: a shipped name or a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Say what this machine has, what is missing and how to get it; 3 when something is. Nothing is started."""
    from harness.doctor.findings import examine, finding_table, lacks, to_json

    asked = load_policy(policy).policy if policy else None
    findings = examine(asked)
    if as_json:
        print(to_json(findings, asked))
    else:
        console().print(finding_table(findings))
    raise typer.Exit(BadInput.exit_code if lacks(findings) else 0)


def _require_role(role: str) -> None:
    if role not in ROLES:
        raise typer.BadParameter(f"--role is {role}; use one of: {', '.join(ROLES)}")

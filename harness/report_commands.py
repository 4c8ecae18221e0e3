"""The commands that write what is read of stored runs; harness/commands.py gives them their names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.runs.folder import RunFolder

SingleFile = Annotated[
    bool, typer.Option("--single-file", help="The page needs no file beside it, and holds fewer samples' texts.")
]


def report(run: Annotated[Path, typer.Argument(help="A run folder.")], single_file: SingleFile = False) -> None:
    """Render the report of a stored run again."""
    from harness.gate.pipeline import render_run

    RunFolder(run).manifest()
    print(render_run(RunFolder(run), single_file))


def card(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    into: Annotated[Path | None, typer.Option(help="A README.md to lay it into; default: print a whole card.")] = None,
    source_url: Annotated[str | None, typer.Option(help="Where the report is published: the results' source.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also into a file that is not named .md.")] = False,
) -> None:
    """Write what RUN found into a model card, and .eval_results/ beside it. Nothing is uploaded; done twice, nothing
    changes the second time."""
    from reports.cards.card_file import merge_into
    from reports.cards.eval_results import write_eval_results
    from reports.cards.model_card import render_model_card
    from reports.render import read_report

    found = read_report(RunFolder(run))
    if into is None:
        print(render_model_card(found, source_url), end="")
        return
    merged = merge_into(found, into, source_url, anyway)
    for line in merged.stayed:
        print(line)
    if merged.backup:
        print(f"as it was: {merged.backup}")
    beside = write_eval_results(found, into, source_url)
    for said in [*beside.left_out, *beside.paths, into]:
        print(said)


def history(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("history.html"),
) -> None:
    """Lay RUNS beside each other: each model's checks over time, and any two runs side by side."""
    from reports.history.page import write_history

    for name, why in write_history(runs, out).skipped:
        print(f"not shown: {name}: {why}")
    print(out)


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(help="A file that ends in .csv or .parquet.")],
) -> None:
    """Write all pairs of RUN as a table, one row a pair: scores, answers, tokens, errors, metrics."""
    from reports.formats.pair_table import export_pairs

    rows = export_pairs(RunFolder(run), out)
    print(f"{out}: {rows:,} pairs")

"""RULER: scores by task × length as a heat map; of one length alone, by task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.contract.pairs import Pair
from reports.drawing.canvas import SuiteFigure
from reports.drawing.heatmap import MAX_COLUMNS, Grid, ScorePair, heat_map, worth_drawing
from reports.scores import by_task, task_scores
from reports.suite_figures import scores
from reports.suite_tables.ruler import split
from reports.suite_tables.table import SuiteRun, with_total
from reports.text import number, one_line, percent, plural

TOGETHER = "all tasks"


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """The heat map; or, where all is of one length, the scores by task."""
    groups = by_task(run.pairs, run.tasks)
    grid = _grid({key: pairs for name, pairs in groups.items() if pairs and (key := split(name))})
    if not worth_drawing(grid):
        return scores.figures(run)
    return [SuiteFigure("Score by task and length", finding(grid), heat_map(grid), legend=(), wide=True)]


def _grid(found: dict[tuple[str, int], list[Pair]]) -> Grid:
    lengths = sorted({length for _, length in found})
    tasks = {task: [length for name, length in found if name == task] for task, _ in found}
    heads = heads_of(lengths)
    cells = {(task, heads[length]): scores_of(pairs) for (task, length), pairs in found.items()}
    rows = list(with_total({task: [p for n in of for p in found[task, n]] for task, of in tasks.items()}, TOGETHER))
    total = len(rows) > len(tasks)
    if total:
        for length in lengths:
            of_length = [pair for key, pairs in found.items() if key[1] == length for pair in pairs]
            cells[TOGETHER, heads[length]] = scores_of(of_length)
    return Grid(rows, [*heads.values()], cells, "tokens", total)


def scores_of(pairs: Sequence[Pair]) -> ScorePair:
    """Both roles' scores, of the pairs in which both have one."""
    found = task_scores("", pairs)
    return found.reference.score, found.candidate.score


def short(length: int) -> str:
    """Tokens as a column's head: 4k, 31.5k, 1M, in units of 1,024; short ones as they are."""
    if length < 1024:
        return number(length)
    return f"{length / 1024:.3g}k" if length < 1000 * 1024 else f"{length / 1024**2:.3g}M"


def heads_of(lengths: Iterable[int]) -> dict[int, str]:
    """What each length's column is called: short, unless two of them would be called the same."""
    heads = {length: short(length) for length in lengths}
    return heads if len({*heads.values()}) == len(heads) else {length: number(length) for length in heads}


def finding(grid: Grid, before: str = "") -> str:
    """Where most was lost, in words; `before` stands before the name of a row."""
    more = f"The {MAX_COLUMNS} longest of {len(grid.columns)} lengths. " if len(grid.columns) > MAX_COLUMNS else ""
    drop = grid.largest_drop
    if drop is None:
        return f"{more}The candidate is lower in none of {plural(len(grid.single), 'cell')}."
    row, column, reference, candidate = drop
    where = f"{before}{one_line(row, 60)} at {column} tokens"
    return f"{more}The largest drop is {where}: {percent(reference)} to {percent(candidate)}."

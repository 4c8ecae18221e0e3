"""What is measured: the plan, and the parts of the evidence made from its cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.validity import outcomes, pairs, scores, sequential, tables
from benchmarks.validity.cells import Call, Cells

SIDES = ("upper", "lower")


@dataclass(frozen=True)
class Plan:
    """How much is computed. Losses are 0, each margin and twice each margin."""

    trials: int = 20_000
    items: tuple[int, ...] = (10, 50, 100, 500, 1319)
    discordances: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2)
    margins: tuple[float, ...] = (0.01, 0.03, 0.05)
    method_items: tuple[int, ...] = (10, 50, 100, 135, 500, 1319)
    method_margins: tuple[float, ...] = (0.01, 0.02, 0.03, 0.05)
    grid_points: int = 100
    """Discordances between the margin and all pairs at which exact chances are computed."""
    anywhere_points: int = 40
    """Discordances at which every threshold is tried where a decision changes."""
    spots: int = 200
    edge_every: int = 10
    """Every which c of a table's edge is looked at through the product's interval."""
    long_trials: int = 1_000
    times_fixed: int = 20
    """Length of the long streams, as a multiple of the items that the fixed test needs."""
    score_items: tuple[int, ...] = (10, 50, 100, 500)
    most_multisets: int = 4_000
    ratio_items: tuple[int, ...] = (8, 16, 32, 64, 128)
    sigmas: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5)
    ratio_trials: int = 5_000
    resamples: int = 2_000
    part_items: tuple[int, ...] = (100, 300, 1000)
    part_draws: int = 2_000

    @property
    def losses(self) -> list[float]:
        return sorted({0.0, *self.margins, *(round(2 * m, 6) for m in self.margins)})


FULL = Plan()
QUICK = Plan(
    trials=500,
    items=(10, 20),
    method_items=(10, 20),
    discordances=(0.0, 0.1),
    margins=(0.05,),
    method_margins=(0.05,),
    grid_points=20,
    anywhere_points=5,
    spots=5,
    long_trials=50,
    score_items=(10,),
    most_multisets=50,
    ratio_items=(8,),
    sigmas=(0.5,),
    ratio_trials=50,
    resamples=200,
    part_items=(20,),
    part_draws=50,
)


def evidence(plan: Plan, cells: Cells, data: Path | None, workers: int) -> dict[str, Any]:
    """Every part; the real outcomes only where their folder is."""
    made = Tables(plan, cells, workers)
    return {
        "tables": made.checks(),
        "pairs": fixed_test(plan, made),
        "methods": methods(plan, made),
        "anywhere": [pairs.worst_anywhere(n, grid, plan.anywhere_points) for n, grid in made.grids.items()],
        "sequential": sequential_test(plan, cells, workers),
        "graded": graded_scores(plan, cells, workers),
        "ratios": ratios(plan, cells, workers),
        "cases": cells.run([Call(outcomes.cases, ())])[0],
        "outcomes": real_outcomes(plan, cells, data, made, workers),
    }


class Tables:
    """The decision tables of a plan, computed at once by as many processes as there may be."""

    def __init__(self, plan: Plan, cells: Cells, workers: int) -> None:
        self.plan, self.cells, self.workers = plan, cells, workers
        self.small = [n for n in {*plan.items, *plan.method_items, *plan.part_items} if n <= tables.EXHAUSTIVE]
        self.large = [n for n in plan.items if n > tables.EXHAUSTIVE]
        wanted = [(n, t, side) for n in self.large for t in plan.losses for side in SIDES]
        wanted += [(n, t, "upper") for n in plan.method_items if n > tables.EXHAUSTIVE for t in plan.method_margins]
        wanted += [(n, t, s) for n in plan.part_items if n > tables.EXHAUSTIVE for t in (0.01, 0.03) for s in SIDES]
        self.wanted = list(dict.fromkeys(wanted))
        grids = cells.run([Call(tables.grid, (n,)) for n in sorted(self.small)], workers)
        self.grids = dict(zip(sorted(self.small), grids, strict=True))
        cells.run([Call(tables.staircase, key) for key in self.wanted], workers)

    def __call__(self, n: int, threshold: float, side: str) -> list[int]:
        if n in self.grids:
            return tables.table_of_grid(self.grids[n][side], threshold)
        return list(self.cells.run([Call(tables.staircase, (n, threshold, side))])[0])

    def named(self, n: int) -> dict[str, list[int]]:
        return {f"{side} {t}": self(n, t, side) for t in self.plan.losses for side in SIDES}

    def checks(self) -> dict[str, Any]:
        """How well the tables stand for the product's interval."""
        edges = self.cells.run([Call(tables.edges, (*key, self.plan.edge_every)) for key in self.wanted], self.workers)
        spots = self.cells.run([Call(tables.spots, (n, self.plan.spots)) for n in self.large], self.workers)
        wrong = dict.fromkeys(SIDES, 0)
        for n, found in zip(self.large, spots, strict=True):
            for t in self.plan.losses:
                for side in SIDES:
                    wrong[side] += tables.spot_check(found, t, side, self(n, t, side))  # type: ignore[arg-type]
        return {
            "grids": {str(n): tables.inversion(n, grid) for n, grid in self.grids.items()},
            "edges": {
                side: {
                    "looked": sum(e["looked"] for e, key in zip(edges, self.wanted, strict=True) if key[2] == side),
                    "wrong": sum(e["wrong"] for e, key in zip(edges, self.wanted, strict=True) if key[2] == side),
                }
                for side in SIDES
            },
            "spots": {"decisions": len(self.large) * self.plan.spots * len(self.plan.losses), "wrong": wrong},
        }


def fixed_test(plan: Plan, made: Tables) -> list[dict[str, Any]]:
    """Each n, discordance and true loss: simulated and exact rates at all margins."""
    rows = []
    for n in plan.items:
        named = made.named(n)
        for discordance in plan.discordances:
            for loss in plan.losses:
                there = max(discordance, loss)
                rows.append(
                    {
                        "n": n,
                        "discordance": discordance,
                        "all_discordant_lost": discordance <= loss,
                        "loss": loss,
                        "trials": plan.trials,
                        "simulated": pairs.simulate(n, there, loss, named, plan.trials, plan.margins),
                        "exact": pairs.enumerate_cell(n, there, loss, named, plan.margins),
                    }
                )
    return rows


def methods(plan: Plan, made: Tables) -> list[dict[str, Any]]:
    """False passes at the margin by method, exact."""
    return [
        pairs.compare_methods(n, margin, made(n, margin, "upper"), plan.discordances, plan.grid_points)
        for n in plan.method_items
        for margin in plan.method_margins
    ]


def sequential_test(plan: Plan, cells: Cells, workers: int) -> dict[str, Any]:
    """Error rates with a look after every item, and items used until the decision."""
    errors = [
        (max(d, loss), loss, margin)
        for d in plan.discordances
        for margin in plan.margins
        for loss in (0.0, margin, round(2 * margin, 6))
    ]
    used = [
        (d, loss, margin)
        for d in plan.discordances
        for margin in plan.margins
        for loss in (0.0, margin / 2, round(2 * margin, 6), 0.1)
        if d >= loss and abs(loss - margin) > 1e-9
    ]
    errors, used = list(dict.fromkeys(errors)), list(dict.fromkeys(used))
    found = cells.run([Call(sequential.error_rates, (*key, plan.items, plan.trials)) for key in errors], workers)
    counts = cells.run(
        [Call(sequential.items_used, (*key, plan.times_fixed, plan.long_trials)) for key in used], workers
    )
    names = ("discordance", "loss", "margin")

    def rows(keys: list[Any], values: list[Any], trials: int) -> list[dict[str, Any]]:
        return [dict(zip(names, k, strict=True)) | {"trials": trials} | v for k, v in zip(keys, values, strict=True)]

    return {"errors": rows(errors, found, plan.trials), "items": rows(used, counts, plan.long_trials)}


def graded_scores(plan: Plan, cells: Cells, workers: int) -> list[dict[str, Any]]:
    keys = [(shape, n) for shape in (*scores.SHAPES, "fractions") for n in plan.score_items]
    calls = [Call(scores.graded, (*key, plan.trials, plan.most_multisets)) for key in keys]
    found = cells.run(calls, workers)
    return [{"shape": shape, "n": n, "mean": scores.MEAN} | v for (shape, n), v in zip(keys, found, strict=True)]


def ratios(plan: Plan, cells: Cells, workers: int) -> list[dict[str, Any]]:
    keys = [(sigma, n) for sigma in plan.sigmas for n in plan.ratio_items]
    found = cells.run([Call(scores.ratio, (*key, plan.ratio_trials, plan.resamples)) for key in keys], workers)
    return [{"sigma": s, "n": n, "trials": plan.ratio_trials} | v for (s, n), v in zip(keys, found, strict=True)]


def real_outcomes(plan: Plan, cells: Cells, data: Path | None, made: Tables, workers: int) -> dict[str, Any]:
    """What the product says of real results, or the reason why there is nothing."""
    if data is None or not (data / outcomes.SWEBENCH).is_dir():
        return {"skipped": "no folder of real outcomes was given (--data or QUANTGATE_DATA)"}
    folder = str(data)
    calls = [
        Call(outcomes.swebench, (folder, "per_instance_resolved")),
        Call(outcomes.swebench, (folder, "verified_2024_even")),
        Call(outcomes.published_pairs, (folder,)),
        Call(outcomes.quantized_llama, (folder,)),
        Call(outcomes.mmlu_pro, (folder,)),
    ]
    names = ("swebench", "swebench_2024", "published_pairs", "quantized_llama", "mmlu_pro")
    found = dict(zip(names, cells.run(calls, workers), strict=True))
    parts = [outcomes.subsamples(folder, n, plan.part_draws, made) for n in plan.part_items]
    return found | {"subsamples": [row for part in parts for row in part]}

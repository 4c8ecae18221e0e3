"""Additive codes by beam search, in turn with least squares for codebooks and scales.

The idea is AQLM's (arXiv 2401.06118): a group of weights is a sum of entries of M codebooks that are learned for each
Linear, codes and codebooks in turn, so that the output error |(W - Q) X|^2 = tr(E H E^T) gets small. This is our own
way to do it. The search is not a descent over codes that exist: it goes through the columns as the sweep does
(sweep.py), where an error costs what is left of it once the columns after it have moved, and keeps the best few
beginnings of each row. The codebooks are solved for by conjugate gradients, which need no rate, and scales in closed
form. Every step is only taken for rows where it lowers the error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from quantgate_kernels.formats.aqlm import AQLMLayout, units

from quantizers.curvature import Curvature
from quantizers.kmeans import kmeans, nearest_few, segments

SEED = 20260101
STATES = 1 << 26
"""Elements of all the rows that are searched at a time."""
TOGETHER = 128
"""Columns that are searched before the columns after them hear of it: a few large products for many small ones."""
BETWEEN = 8
"""How many times as many choices are kept between two codebooks of a group: worth more than a wider beam (measured)."""
SMALLEST_SCALE, LARGEST = 2.0**-24, 65504.0
"""Of fp16."""


@dataclass(frozen=True)
class Effort:
    """How long to search: the figures in docs/low-bits.md are of the defaults."""

    beam: int = 4
    """Beginnings of a row that are kept."""
    rounds: int = 3
    """Searches, each followed by new codebooks and scales."""
    steps: int = 16
    """Of conjugate gradients for each round's codebooks."""
    lloyd: int = 16
    """Rounds of k-means for the first codebooks."""


class AdditiveFit:
    """A weight [O, I] while codes, codebooks and scales are fitted to it; entries have one row."""

    def __init__(
        self, weight: torch.Tensor, curvature: Curvature, layout: AQLMLayout, damping: float, effort: Effort
    ) -> None:
        """Begin with scales that are the RMS of rows and with codebooks by k-means on residuals.

        Raises:
            HessianError: the Hessian cannot be used.
        """
        self.weight, self.layout, self.effort = weight.to(torch.float32), layout, effort
        self.factors = curvature.factors(layout.in_group, damping)
        self.hessian = _damped(curvature.hessian, damping)
        self.scales = _fp16(self.weight.square().mean(1).sqrt()).clamp_min(SMALLEST_SCALE)
        """float32 of fp16 values [O]."""
        shape = (len(weight), weight.shape[1] // layout.in_group, layout.books)
        self.codes = torch.zeros(shape, dtype=torch.int64, device=weight.device)
        """[O, I/i, M]."""
        self.codebooks = self._first_codebooks()
        """float32 of fp16 values [M, K, 1, i]."""

    def row_losses(self, codes: torch.Tensor | None = None) -> torch.Tensor:
        """e H e^T of each row [O] with these codes (the fit's own if none are given)."""
        error = self.weight - self.scales[:, None] * units(self.codes if codes is None else codes, self.codebooks)
        return ((error @ self.hessian) * error).sum(1)

    def search(self, tick: Callable[[], None], *, first: bool = False) -> None:
        """Search new codes; unless these are the first, a row keeps its codes where the new ones are no better."""
        step = max(1, STATES // (self.effort.beam * self.weight.shape[1]))
        targets = self.weight / self.scales[:, None]
        found = torch.cat([self._beam(part, tick) for part in torch.split(targets, step)])
        if first:
            self.codes = found
        else:
            better = self.row_losses(found) < self.row_losses()
            self.codes = torch.where(better[:, None, None], found, self.codes)

    def update_codebooks(self, tick: Callable[[], None]) -> None:
        """Codebooks by least squares for the codes, as far as some steps of conjugate gradients go."""
        books, entries, _, width = self.codebooks.shape
        offsets = torch.arange(books, device=self.codes.device) * entries
        slots = (self.codes + offsets).view(-1, books)
        order, counts = [], []
        for book in range(books):
            order.append(torch.argsort(self.codes[:, :, book].reshape(-1), stable=True))
            counts.append(torch.bincount(self.codes[:, :, book].reshape(-1), minlength=entries))

        def gathered(table: torch.Tensor) -> torch.Tensor:
            """What [M * K, i] adds to the weight."""
            return table[slots].sum(1).view(self.weight.shape) * self.scales[:, None]

        def scattered(values: torch.Tensor) -> torch.Tensor:
            """The transpose of `gathered`; sums in a fixed order."""
            groups = (values * self.scales[:, None]).view(-1, width)
            sums = [segments(groups[order[book]], counts[book]) for book in range(books)]
            return torch.cat(sums)

        table = self.codebooks.view(-1, width).clone()
        diagonal = torch.diagonal(self.hessian).expand_as(self.weight) * self.scales[:, None]
        condition = scattered(diagonal)
        condition = torch.where(condition > 0, 1 / condition.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
        rest = scattered((self.weight - gathered(table)) @ self.hessian)
        towards = condition * rest
        direction, product = towards, (rest * towards).sum(dtype=torch.float64)
        for _ in range(self.effort.steps):
            image = scattered(gathered(direction) @ self.hessian)
            curve = (direction * image).sum(dtype=torch.float64)
            if not bool(curve > 0) or not bool(product > 0):
                break
            length = (product / curve).to(torch.float32)
            table += length * direction
            rest -= length * image
            towards = condition * rest
            previous, product = product, (rest * towards).sum(dtype=torch.float64)
            direction = towards + (product / previous).to(torch.float32) * direction
            tick()
        before, held = self.row_losses().sum(), self.codebooks
        self.codebooks = _fp16(table).view(held.shape)
        if not bool(self.row_losses().sum() <= before):
            self.codebooks = held

    def update_scales(self) -> None:
        """The best scale of each row for its codes, where it is positive and its fp16 value lowers the error."""
        found = units(self.codes, self.codebooks)
        image = found @ self.hessian
        across, along = (self.weight * image).sum(1), (found * image).sum(1)
        wanted = _fp16(across / along.clamp_min(torch.finfo(torch.float32).tiny)).clamp_min(SMALLEST_SCALE)
        before, held = self.row_losses(), self.scales
        self.scales = torch.where((across > 0) & (along > 0), wanted, held)
        self.scales = torch.where(self.row_losses() < before, self.scales, held)

    def run(self, tick: Callable[[], None]) -> None:
        """Searches and updates in turn; ends with updates, so that codebooks fit the codes."""
        for number in range(self.effort.rounds):
            self.search(tick, first=number == 0)
            self.update_codebooks(tick)
            self.update_scales()

    def _first_codebooks(self) -> torch.Tensor:
        """K-means on the groups in units of their row's scale, then on what is left of them, a codebook each."""
        width, entries = self.layout.in_group, self.layout.entries
        rest = (self.weight / self.scales[:, None]).view(-1, width)
        columns = torch.diagonal(self.hessian).view(-1, width).mean(1)
        weights = (self.scales.square()[:, None] * columns[None]).view(-1)
        found = []
        for book in range(self.layout.books):
            table = _fp16(kmeans(rest, weights, entries, self.effort.lloyd, SEED + book))
            rest = rest - table[nearest_few(rest, table, 1)[0][:, 0]]
            found.append(table)
        return torch.stack(found)[:, :, None]

    def _beam(self, work: torch.Tensor, tick: Callable[[], None]) -> torch.Tensor:
        """Codes [R, I/i, M] of rows [R, I] in units of their scale."""
        (rows, columns), width = work.shape, self.layout.in_group
        every = torch.arange(rows, device=work.device)[:, None]
        work, cost = work[:, None], torch.zeros(rows, 1, device=work.device)
        codes, parents = [], []
        for start in range(0, columns, TOGETHER):
            stop = min(start + TOGETHER, columns)
            near, errors = work[:, :, : stop - start], work[:, :, :0]
            origin = torch.arange(work.shape[1], device=work.device).expand(rows, -1)
            for place in range(start, stop, width):
                group, after = near[:, :, :width], place + width
                parent, chosen, cost = self._choose(group, self.factors.metric[place // width], cost)
                entries = torch.stack([book[chosen[:, :, m], 0] for m, book in enumerate(self.codebooks)]).sum(0)
                error = group[every, parent] - entries
                near = near[every, parent, width:] - error @ self.factors.spread[place:after, after:stop]
                errors, origin = torch.cat([errors[every, parent], error], 2), origin[every, parent]
                codes.append(chosen)
                parents.append(parent)
            work = work[every, origin, stop - start :] - errors @ self.factors.spread[start:stop, stop:]
            tick()
        best = cost.argmin(1, keepdim=True)
        found = []
        for chosen, parent in zip(reversed(codes), reversed(parents), strict=True):
            found.append(chosen[every, best][:, 0])
            best = parent[every, best]
        return torch.stack(found[::-1], 1)

    def _choose(
        self, group: torch.Tensor, metric: torch.Tensor, cost: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes for one group of each row, one codebook after the other.

        Args:
            group: the group in each beginning of each row [R, b, i].
            metric: what its errors cost [i, i], see `Factors`.
            cost: of each beginning so far [R, b].

        Returns: the best pairs of beginning [R, beam] and codes [R, beam, M], and their costs [R, beam].
        """
        rest, beam = group @ metric, self.effort.beam
        rows, width = rest.shape[0], rest.shape[2]
        every = torch.arange(rows, device=rest.device)[:, None]
        parent = torch.arange(rest.shape[1], device=rest.device).expand(rows, -1)
        chosen = torch.empty(rows, rest.shape[1], 0, dtype=torch.int64, device=rest.device)
        for book in range(self.layout.books):
            last = book + 1 == self.layout.books
            # What an entry leaves says little of what the next codebook makes of it: keep more until the last.
            keep, few = (beam, 2 if book else beam) if last else (BETWEEN * beam, 2 * beam)
            table = self.codebooks[book, :, 0] @ metric
            few = min(few, len(table))
            index, distance = nearest_few(rest.reshape(-1, width), table, few)
            total = cost[every, parent][:, :, None] + distance.view(rows, -1, few)
            total, picked = total.flatten(1).topk(min(keep, total[0].numel()), dim=1, largest=False)
            source, code = picked // few, index.view(rows, -1)[every, picked]
            parent, rest = parent[every, source], rest[every, source] - table[code]
            chosen = torch.cat([chosen[every, source], code[:, :, None]], 2)
        return parent, chosen, total


def _damped(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """A Hessian in units of its mean, damped; the identity for one that is zero."""
    mean = torch.diagonal(hessian).to(torch.float64).mean().to(torch.float32)
    identity = torch.eye(len(hessian), device=hessian.device)
    return hessian.to(torch.float32) / mean + damping * identity if bool(mean > 0) else identity


def _fp16(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-LARGEST, LARGEST).to(torch.float16).to(torch.float32)

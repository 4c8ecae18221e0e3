"""The best path through a bit-shift trellis for each tile of a weight: Viterbi's algorithm in torch.

A state of L bits is followed by the 2^k states (state << k | symbol) mod 2^L. States that share their lower L - k bits
have the same followers: such a *group* is what the search keeps a cost for, 2^(L-k) of them. A path must end in the
group that it began in (tail-biting): a first search goes freely around the ring and 32 symbols further; a second one
begins where it crossed the ring's end, and joins its path after JOINED symbols. That costs 4 to 6 % of squared error
against paths with a free end, of which most is inherent: they have 14 bits more in 256 weights.

What a column lost is fed to the columns after it within the search: after each column the best path so far says what
its values would be, and the targets of the later columns move as GPTQ moves them. Without it the tile has nothing to
compensate with, which cost 15 % of KL at 2 bits (docs/low-bits.md).

Method: QTIP (arXiv 2406.11235), with feedback inside the tile.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import torch

from quantizers.trellis import viterbi_cuda
from quantizers.trellis.viterbi_cuda import JOINED

WRAPPED = 32
"""Symbols that the first search goes on after the ring's end."""
REACH = 5.0
"""Targets beyond this many units count as this many: values end at 4, and costs stay comparable."""
COSTS = {"cpu": 1 << 18, "cuda": 1 << 23}
"""Costs (states times tiles) held at a time: what a cache holds, and what fills a GPU."""
FEWEST = 16
"""Tiles side by side even if their costs are more than that: fewer do not fill vector registers."""
MOST_WORKERS = 8
"""Each needs 300 MB for 16 tiles of 2^16 states at 2 bits: the costs at every symbol."""


def search(targets: torch.Tensor, feedback: torch.Tensor, table: torch.Tensor, bits: int) -> torch.Tensor:
    """The symbols uint8 [tiles, 256] whose values are near targets [tiles, 256], in units of the scale.

    Args:
        feedback: [16, 16]: an error e of column c moves the targets of column c' > c by -e feedback[c, c']; or
            [E, 16, 16]: one for each of E runs of equally many tiles.
        table: values float32 [2^L].
    """
    if targets.is_cuda and viterbi_cuda.usable(targets.device, table, bits):
        return viterbi_cuda.search(targets, feedback, table, bits)
    return search_torch(targets, feedback, table, bits)


def search_torch(targets: torch.Tensor, feedback: torch.Tensor, table: torch.Tensor, bits: int) -> torch.Tensor:
    """`search` without a kernel of its own; tiles may have any number of symbols, of as many columns as `feedback`."""
    step = max(FEWEST, COSTS[targets.device.type] // len(table))
    feedback = feedback.view(-1, *feedback.shape[-2:])
    if len(feedback) > 1:
        feedback = feedback.repeat_interleave(len(targets) // len(feedback), 0)

    def found(start: int) -> torch.Tensor:
        part = slice(start, start + step)
        return Search(targets[part], feedback[part] if len(feedback) > 1 else feedback, table, bits).ring()

    if targets.is_cuda:
        return torch.cat([found(start) for start in range(0, len(targets), step)])
    # Two threads for one small operation wait for each other more than they work, ten times as long where another
    # process needs a core; two operations side by side do not.
    threads = torch.get_num_threads()
    workers = min(threads, MOST_WORKERS)
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            step = min(step, -(-len(targets) // workers))
            return torch.cat(list(pool.map(found, range(0, len(targets), step))))
    finally:
        torch.set_num_threads(threads)


class Search:
    """Paths for tiles side by side; the tiles are the last dimension of everything, so that all loops run over them."""

    def __init__(self, targets: torch.Tensor, feedback: torch.Tensor, table: torch.Tensor, bits: int) -> None:
        self.targets = targets.t().contiguous()
        self.feedback = feedback.view(-1, *feedback.shape[-2:]).permute(1, 2, 0).contiguous()
        """[c, c', 1 for all tiles together, or tiles]."""
        self.table, self.bits = table, bits
        self.symbols, self.tiles = self.targets.shape
        self.height = self.symbols // feedback.shape[-1]
        """Symbols of a column."""
        self.ways, self.groups = 1 << bits, len(table) >> bits
        self.origins = torch.arange(self.ways, device=targets.device)[:, None] * self.groups
        size = (self.symbols + WRAPPED + 1, self.groups, self.tiles)
        self.costs = torch.empty(size, device=targets.device)
        """Of the best path into each group before each symbol; the way back is found by computing a step again."""
        self.aims = self.bounded = self.targets
        """The targets as errors moved them, and these within reach."""

    def ring(self) -> torch.Tensor:
        """The symbols [tiles, n] of the best path around the ring from where a free path crosses its end."""
        steps, joined = self.symbols + WRAPPED, min(JOINED, self.symbols)
        self._forward(None, steps)
        _, crossing = self._back(self.costs[steps].argmin(0), steps, WRAPPED)
        if joined == self.symbols:
            return self.path(crossing, crossing)
        kept, joint = self._back(crossing, self.symbols, self.symbols - joined)
        self._forward(crossing, joined)
        begun, _ = self._back(joint, joined, joined)
        return self._symbols(torch.cat([begun, kept]))

    def path(self, start: torch.Tensor | None, end: torch.Tensor | None) -> torch.Tensor:
        """The symbols [tiles, n] of the best path from and to these groups [tiles]; None: to where it is best."""
        self._forward(start, self.symbols)
        last = self.costs[self.symbols].argmin(0) if end is None else end
        states, _ = self._back(last, self.symbols, self.symbols)
        return self._symbols(states)

    def _symbols(self, states: torch.Tensor) -> torch.Tensor:
        return (states & (self.ways - 1)).to(torch.uint8).t()

    def _forward(self, start: torch.Tensor | None, steps: int) -> None:
        """Fill in the costs of `steps` symbols, from `start` or from anywhere."""
        self.aims, self.bounded = self.targets.clone(), self.targets.clamp(-REACH, REACH)
        if start is None:
            self.costs[0] = 0
        else:
            self.costs[0] = math.inf
            self.costs[0].scatter_(0, start[None], 0.0)
        # A state is (k upper bits, middle, k lower bits); here in the order upper, lower, middle: states with one group
        # before them (upper, middle) and those with one after them (middle, lower) are then whole blocks apart.
        ways, tiles, middle = self.ways, self.tiles, self.groups // self.ways
        values = self.table.view(ways, middle, ways).transpose(1, 2).reshape(ways, ways, middle, 1)
        each = torch.empty(ways, ways, middle, tiles, device=self.costs.device)
        least = torch.empty(ways, middle, tiles, device=self.costs.device)
        for step in range(steps):
            if 0 < step < self.symbols and step % self.height == 0:
                self._feed(step)
            torch.sub(values, self.bounded[step % self.symbols], out=each).square_()
            each += self.costs[step].view(ways, 1, middle, tiles)
            torch.amin(each, 0, out=least)
            self.costs[step + 1].view(middle, ways, tiles).copy_(least.transpose(0, 1))

    def _feed(self, step: int) -> None:
        """Move the targets from `step` on by the errors of the column that ends there."""
        states, _ = self._back(self.costs[step].argmin(0), step, self.height)
        errors = self.aims[step - self.height : step] - self.table[states]
        column = step // self.height
        moves = self.feedback[column - 1, column:, None] * errors
        self.aims[step:] -= moves.reshape(-1, self.tiles)
        self.bounded[step:] = self.aims[step:].clamp(-REACH, REACH)

    def _back(self, group: torch.Tensor, step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """States [count, tiles] of the best path into `group` [tiles] before `step`, and the group it came from."""
        found = []
        for place in range(step - 1, step - 1 - count, -1):
            states = self.origins + group
            each = (self.table[states] - self.bounded[place % self.symbols]).square_()
            each += self.costs[place].gather(0, states >> self.bits)
            state = states.gather(0, each.argmin(0, keepdim=True))[0]
            found.append(state)
            group = state >> self.bits
        return torch.stack(found[::-1]), group

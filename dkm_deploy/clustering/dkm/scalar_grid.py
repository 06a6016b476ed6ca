"""A table over the range of each group: weights are spread onto its nodes, functions read off it.

A range is cut into equal cells, and a cell into a power of two of equal parts, more of them where
the attention turns from one centroid to the next. Both ways are linear in the two nodes beside a
weight, so that counts and means are kept exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Weights at a time: they stay in a core's cache, and below what torch splits among threads.
_BLOCK = {"cpu": 1 << 15}
_WIDE_BLOCK = 1 << 24
_LEVELS = 15  # a cell has up to 2**14 parts
_STEP = 0.1  # a part, at most, in widths of a turn: keeps the gradient within 1e-3
_FINE_STEP = 0.012  # the same, over the root of a turn's height: keeps values within 4e-6
REACH = 16.0  # widths to either side of a turn; beyond, its tail is below e**-16
_FINE_CELLS = 1 << 17  # of an even grid that weights are located on: a table of them is 1 MiB
_NARROW_CELLS = 1 << 15  # of an even grid on which float32 positions are precise enough
_PLAIN_SPANS = 1e-30, 1e30  # ranges in which float32 positions neither overflow nor vanish
_DROPPED_BITS = 29  # of a float64 that float32 has not

Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Grid:
    """Nodes of all groups, one group after the other; positions are 0 to 1 in each group.

    Attributes:
        cells: of a group.
        parts: float64, ``(groups * cells,)``.
        first: int32, ``(groups * cells,)``: the node where a cell starts.
        nodes: float64, ``(nodes,)``.
        rows: int64, ``(nodes,)``: the group of a node.
        dtype: of positions, shares and values at the weights.
    """

    cells: int
    parts: Tensor
    first: Tensor
    nodes: Tensor
    rows: Tensor
    dtype: torch.dtype = torch.float64

    def steps(self) -> Tensor:
        """The wider of the parts beside each node, ``(nodes,)``."""
        gaps = self.nodes.diff().clamp(min=0)  # from one group to the next it is negative
        none = gaps.new_zeros(1)
        return torch.maximum(torch.cat([none, gaps]), torch.cat([gaps, none]))

    def locate(self, positions: Tensor, group: int) -> tuple[Tensor, Tensor]:
        """The node at or below each position, and the share of the next one.

        Args:
            positions: float64, ``(some groups, count)``, in cells, below ``cells``; overwritten.
            group: the first of these groups.

        Returns:
            int32 and float64, both flat.
        """
        # int32: AVX2 converts from it and to it many at a time, and not from int64.
        cell = positions.int()
        share = positions.sub_(cell).flatten()
        groups = torch.arange(group, group + len(cell), device=cell.device, dtype=torch.int32)
        cell = cell.add_(groups[:, None] * self.cells).flatten()
        share = share.mul_(self.parts.index_select(0, cell))
        part = share.int()
        # A share that rounds up to a whole cell names its last node and nothing of the next.
        return part.add(self.first.index_select(0, cell)), share.sub_(part)


def make_grid(levels: Tensor) -> Grid:
    """The grid whose cell i of a group has ``2**levels[group, i]`` parts; levels are int64."""
    groups, cells = levels.shape
    parts = (1 << levels).flatten()
    last = torch.arange(1, groups * cells + 1, device=levels.device) % cells == 0
    nodes = parts + last  # a group has one more node than parts
    first = nodes.cumsum(0) - nodes
    cell = torch.repeat_interleave(nodes)
    within = torch.arange(len(cell), device=levels.device) - first[cell]
    positions = (cell % cells + within / parts[cell]) / cells
    return Grid(cells, parts.double(), first.int(), positions, cell // cells)


def levels_for(centroids: Tensor, tau: Tensor, cells: int, reach: float = REACH) -> Tensor:
    """How finely each cell must be cut for the attention to these centroids; ``(groups, cells)``.

    Attention turns midway between neighbours, over a width of ``tau / (2 * gap)``, or about
    ``sqrt(tau) / 2`` where centroids are closer than that.

    Args:
        centroids: ``(groups, clusters)``, positions.
        tau: ``(groups,)``, squared positions.
        cells: of a group.
        reach: widths to either side of a turn that must be fine.
    """
    ordered = centroids.sort(1).values
    height = torch.maximum(ordered.diff(), tau.sqrt()[:, None])
    width = tau[:, None] / (2 * height)
    step = width * (_FINE_STEP / height.sqrt()).clamp(max=_STEP)
    middle = (ordered[:, 1:] + ordered[:, :-1]) / 2
    level = (-(cells * step).log2()).round().clamp(0, _LEVELS - 1).long()
    low = ((middle - reach * width) * cells).clamp(0, cells).long()
    high = ((middle + reach * width) * cells + 1).clamp(0, cells).long()
    # Where intervals of a level overlap: +1 at each start, -1 at each end, running sums.
    marks = torch.zeros(len(centroids), _LEVELS, cells + 1, device=tau.device)
    flat = (torch.arange(len(tau), device=tau.device)[:, None] * _LEVELS + level) * (cells + 1)
    one = torch.ones_like(flat, dtype=marks.dtype).flatten()
    marks.view(-1).index_add_(0, (flat + low).flatten(), one)
    marks.view(-1).index_add_(0, (flat + high).flatten(), -one)
    covered = marks.cumsum(2)[..., :-1] > 0.5
    number = torch.arange(_LEVELS, device=tau.device)[:, None]
    return torch.where(covered, number, 0).amax(1)


@dataclass(frozen=True)
class Frame:
    """Weights ``(groups, count)`` and the range of each group, which maps to 0..1.

    All that follows is done with positions in the range: it is exact under shifts and scales.

    Attributes:
        weights: any floating dtype.
        low: float64, ``(groups,)``, the least weight.
        span: float64, ``(groups,)``, the width of the range; 1 where all weights are equal. It is
            wider by some 2e-7, so that no position is 1 and that its inverse is a float32:
            float32 positions differ from float64 ones by rounding alone.
    """

    weights: Tensor
    low: Tensor
    span: Tensor

    def positions(
        self, block: Slices, scale: float = 1, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Positions of a block of weights times ``scale``, a power of two."""
        low, factor = self.low[block[0], None], scale / self.span[block[0], None]
        return (self.weights[block].to(dtype) - low.to(dtype)).mul_(factor.to(dtype))

    def blocks(self) -> Iterator[Slices]:
        """Slices of groups and weights that cover all, few enough to stay in cache."""
        groups, count = self.weights.shape
        size = _BLOCK.get(self.weights.device.type, _WIDE_BLOCK)
        height, width = max(1, size // count), min(size, count)
        for row in range(0, groups, height):
            for column in range(0, count, width):
                yield slice(row, min(row + height, groups)), slice(column, column + width)


def frame_of(weights: Tensor) -> Frame:
    """The frame of weights ``(groups, count)``."""
    # The reduction of a whole tensor is many times faster than that of its rows.
    bounds = weights.aminmax() if len(weights) == 1 else weights.aminmax(dim=1)
    low, high = (bound.double().view(-1) for bound in bounds)
    inverse = 1 / torch.where(high > low, high - low, 1)
    last_bit = 1 << _DROPPED_BITS
    inverse = inverse.view(torch.int64).bitwise_and(-last_bit).sub(last_bit).view(torch.float64)
    return Frame(weights, low, 1 / inverse)


@dataclass(frozen=True)
class Even:
    """An even grid that holds all nodes of one group's grid: weights are located on it at once.

    A function that is linear between the nodes is linear between these too, so that both ways
    through it give what the grid itself gives.

    Attributes:
        cells: of it, a power of two.
        dtype: of positions, shares and values at the weights: float32 where that is precise.
        node: int32, ``(cells + 1,)``: the grid's node at or below each of its own.
        share: float64, ``(cells + 1,)``: of the next one.
    """

    cells: int
    dtype: torch.dtype
    node: Tensor
    share: Tensor

    @classmethod
    def of(cls, grid: Grid, frame: Frame) -> Even | None:
        """The even grid for these weights, or None where it would not be much smaller."""
        cells = grid.cells * int(grid.parts.max())
        if len(frame.low) > 1 or cells > min(_FINE_CELLS, frame.weights.shape[1] // 4):
            return None
        low, high = _PLAIN_SPANS
        narrow = cells <= _NARROW_CELLS and low < float(frame.span) < high
        dtype = frame.weights.dtype if narrow else torch.float64
        dtype = torch.promote_types(dtype, torch.float32)
        places = torch.arange(cells + 1, device=grid.nodes.device, dtype=torch.float64)
        node, share = grid.locate((places * (grid.cells / cells))[None, :-1], 0)
        last = node.new_full((1,), len(grid.nodes) - 1)
        return cls(cells, dtype, torch.cat([node, last]), torch.cat([share, share.new_zeros(1)]))

    def locate(self, positions: Tensor, group: int) -> tuple[Tensor, Tensor]:
        """As :meth:`Grid.locate`, on this grid."""
        cell = positions.int()
        return cell.flatten(), positions.frac_().flatten()

    def values(self, table: Tensor) -> Tensor:
        """A function given at the grid's nodes, at these."""
        slope = torch.cat([table.diff(), table.new_zeros(1)])
        return torch.addcmul(
            table.index_select(0, self.node), slope.index_select(0, self.node), self.share
        )

    def sums(self, sums: Tensor, nodes: int) -> Tensor:
        """Sums at these nodes, at the grid's."""
        part = self.share * sums
        whole = sums.new_zeros(nodes).index_add_(0, self.node, sums)
        return _to_both(whole, sums.new_zeros(nodes).index_add_(0, self.node, part))


def spread(grid: Grid, frame: Frame, *values: Tensor) -> list[Tensor]:
    """Sums at the nodes: of the weights' count, then of each of ``values``, shaped as weights."""
    even = Even.of(grid, frame)
    places = even or grid
    size = len(grid.nodes) if even is None else even.cells + 1
    sums = [frame.low.new_zeros(size) for _ in range(2 * len(values) + 2)]
    for block in frame.blocks():
        positions = frame.positions(block, places.cells, places.dtype)
        node, share = places.locate(positions, block[0].start)
        share = share.double()
        _add(sums[0], node, None)
        _add(sums[1], node, share)
        for i, value in enumerate(values, 1):
            amount = value[block].double().flatten()
            _add(sums[2 * i], node, amount)
            _add(sums[2 * i + 1], node, share * amount)
    found = [_to_both(whole, part) for whole, part in zip(sums[::2], sums[1::2], strict=True)]
    return found if even is None else [even.sums(one, len(grid.nodes)) for one in found]


def _add(sums: Tensor, node: Tensor, amounts: Tensor | None) -> None:
    """Add amounts, or ones, to the sums at their nodes, in place."""
    if 2 * len(sums) <= len(node):
        # Two to three times as fast on a CPU, but it makes all sums anew.
        sums += torch.bincount(node, amounts, len(sums))
    elif amounts is None:
        sums.index_add_(0, node, sums.new_ones(1).expand(len(node)))
    else:
        sums.index_add_(0, node, amounts)


def _to_both(whole: Tensor, part: Tensor) -> Tensor:
    kept = whole - part
    kept[1:] += part[:-1]
    return kept


def read(
    grid: Grid,
    frame: Frame,
    tables: list[Tensor],
    out: Tensor,
    use: Callable[[Slices, list[Tensor]], Tensor],
) -> None:
    """Functions given at the nodes, at the weights.

    Args:
        grid: the nodes.
        frame: the weights.
        tables: each ``(nodes,)``.
        out: shaped as the weights, for the results.
        use: from a block and the tables' values at its weights, float32 or float64, to the
            result there.
    """
    even = Even.of(grid, frame)
    places = even or grid
    if even is not None:
        tables = [even.values(table) for table in tables]
    dtype = places.dtype
    slopes = [torch.cat([table.diff(), table.new_zeros(1)]).to(dtype) for table in tables]
    tables = [table.to(dtype) for table in tables]
    for block in frame.blocks():
        positions = frame.positions(block, places.cells, dtype)
        shape = positions.shape
        node, share = places.locate(positions, block[0].start)
        values = [
            torch.addcmul(t.index_select(0, node), s.index_select(0, node), share).view(shape)
            for t, s in zip(tables, slopes, strict=True)
        ]
        out[block] = use(block, values)

"""The table of what was measured; what was not says so."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.methods.cells import DENSE, Cell, Result
from benchmarks.methods.ways import WAYS, WIDTHS

Results = Mapping[Cell, Result]


def table(model: str, wanted: Sequence[Cell], results: Results) -> Iterator[str]:
    """Lines of Markdown: a row for each method, a column for each width.

    A cell has the score and the agreement with fp32, the mean over seeds with the standard
    deviation; where its bytes are not those of the column, by how much.
    """
    ours = [cell for cell in wanted if cell.model == model and cell.method != DENSE]
    widths = [width for width in WIDTHS if any(cell.width == width for cell in ours)]
    uniform = {width: _uniform(model, width, results) for width in widths}
    yield f"| method | {' | '.join(widths)} | CPU s |"
    yield f"|---{'|---' * len(widths)}|---|"
    yield f"| bits a weight with LUTs | {' | '.join(_bits(uniform[w]) for w in widths)} | |"
    yield f"| bytes | {' | '.join(_bytes(uniform[w]) for w in widths)} | |"
    for method in WAYS:
        mine = [cell for cell in ours if cell.method == method]
        if not mine:
            continue
        columns = [
            entry([cell for cell in mine if cell.width == width], results, uniform[width])
            for width in widths
        ]
        yield f"| {method} | {' | '.join(columns)} | {_seconds(mine, results)} |"


def dense(model: str, results: Results) -> str:
    """The fp32 model in a line."""
    found = results.get(Cell(model, DENSE, "", 0))
    if found is None:
        return "fp32: not run"
    return f"fp32: {found.score:.2f}; all parameters as float16: {found.total_bytes:,} bytes"


def entry(cells: Sequence[Cell], results: Results, uniform: Result | None) -> str:
    """What stands in one cell of the table, for all its seeds."""
    if not cells:
        return "-"
    found = [results[cell] for cell in cells if cell in results]
    if not found:
        return "not run"
    score = statistics.mean(one.score for one in found)
    agreement = statistics.mean(one.agreement for one in found)
    spread = f" ± {statistics.stdev(one.score for one in found):.2f}" if len(found) > 1 else ""
    text = f"{score:.2f}{spread} / {agreement:.1f}"
    size = statistics.mean(one.total_bytes for one in found)
    if uniform and size != uniform.total_bytes:
        text += f" ({100 * (size / uniform.total_bytes - 1):+.1f} % bytes)"
    return text


def _uniform(model: str, width: str, results: Results) -> Result | None:
    """The first result of a width whose bytes are those of the recipe: plain k-means."""
    return results.get(Cell(model, "kmeans", width, 0)) or next(
        (r for c, r in results.items() if (c.model, c.width, c.method) == (model, width, "dkm")),
        None,
    )


def _bits(result: Result | None) -> str:
    return "-" if result is None else f"{result.bits_per_weight:.2f}"


def _bytes(result: Result | None) -> str:
    return "-" if result is None else f"{result.total_bytes:,}"


def _seconds(cells: Sequence[Cell], results: Results) -> str:
    """The least and the most over the widths of a row; of a width the fastest of its seeds.

    Seeds do the same work, on machines of different speed.
    """
    widths = {cell.width for cell in cells}
    seeds = [[results[c].cpu_s for c in cells if c.width == w and c in results] for w in widths]
    found = sorted(round(min(times)) for times in seeds if times)
    if not found:
        return "-"
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"

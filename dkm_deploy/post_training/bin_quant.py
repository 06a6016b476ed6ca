"""Bin & Quant (Sakthi et al. 2022, arXiv 2210.05111): bins are cut where the model minds most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dkm_deploy._support.argument_checks import function, integer, real
from dkm_deploy._support.measurement_cache import Cache, digest, model_digest, tensor_digest
from dkm_deploy._version import __version__
from dkm_deploy.clustering.kept_zeros import Clustered
from dkm_deploy.clustering.layout import to_palette
from dkm_deploy.errors import DkmError
from dkm_deploy.model.calibration import Calibration
from dkm_deploy.model.metric import Metric, accuracy
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.post_training.loss_probe import LossProbe

_RAISED = 1.2  # what the members of a bin are multiplied by, to see how much the model minds


@dataclass(frozen=True)
class BinQuant:
    """Bins of a weight's values, chosen by the metric of the model, without training.

    A weight starts with four bins; their edges are its least value, mean - sd, mean, mean + sd and
    its largest value. While the model has lost more than ``tolerance``, one bin is cut in two at
    its midpoint: the bin that matters most to the metric if its members are raised by a fifth and
    the rest of the weight stays unchanged. The largest weight comes first, and stays binned while
    the next one is treated. Of weights of equal size, the first is the one whose four bins cost the
    model least.

    Attributes:
        metric: ``metric(first output, labels)``, more is better; the default is top-1 accuracy in
            percent.
        tolerance: loss of the metric that is accepted, in the unit of the metric; the paper's
            authors use 0.2 points of accuracy.
        evaluations: the most evaluations of the model. After these, the bin with the largest
            squared error is cut, up to the bits of the recipe.
        means: use the mean of the members as the value of a bin, which is never worse in squared
            error; False uses the midpoint, as in the paper.
        cache: folder for results of evaluations, by content: a search that was stopped continues
            from it. Metrics are identified by their name.

    Raises:
        DkmError: a value is out of range.

    Example:
        >>> model, inputs = nn.Linear(8, 4), torch.randn(16, 8)
        >>> labels = model(inputs).argmax(1)
        >>> method = dkm.BinQuant(tolerance=100.0)
        >>> frozen = dkm.palettize(model, 4, method, [(inputs, labels)])
        >>> dkm.palettes(frozen)["weight"].bits
        2
    """

    metric: Metric = accuracy
    tolerance: float = 0.2
    evaluations: int = 1_000
    means: bool = True
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        real("tolerance", self.tolerance, least=0)
        integer("evaluations", self.evaluations, 0)
        function("metric", self.metric)

    @property
    def calibrated(self) -> bool:
        """It takes labelled samples."""
        return True

    def palettes(
        self,
        model: nn.Module,
        specs: Mapping[str, PaletteSpec],
        calibration: Calibration | None,
    ) -> Iterator[tuple[str, Palette]]:
        """The bits of a spec are the most that its palette gets; fewer bins make fewer bits.

        Raises:
            DkmError: a spec is not of scalars in one LUT, or the calibration data does not fit.
        """
        for name, spec in specs.items():
            if (spec.cluster_dim, spec.group_size, spec.per_channel_scale) != (1, None, False):
                raise DkmError(f"{name}: bin_quant needs cluster_dim=1, one LUT and no scale")
        probe = LossProbe(model, calibration, self.metric)
        search = _Search(self, probe, model_digest(model))
        firsts = {
            name: Bins.first(model.get_parameter(name).detach(), spec, self.means)
            for name, spec in specs.items()
        }
        for name in search.order(firsts):
            yield name, search.bins(name, firsts[name], 1 << specs[name].bits).palette()


@dataclass(frozen=True)
class Bins:
    """A weight's values cut at edges.

    Attributes:
        weight: of any shape.
        edges: increasing, all values within them, ``(bins + 1,)``; float64.
        means: whether a bin's value is the mean of its members or its midpoint.
        keeps_zeros: whether zeros are in no bin, and stay.
    """

    weight: Tensor
    edges: Tensor
    means: bool
    keeps_zeros: bool

    @classmethod
    def first(cls, weight: Tensor, spec: PaletteSpec, means: bool) -> Bins:
        """Four bins, or fewer where edges coincide or leave the range of the values."""
        keeps_zeros = Clustered.of(weight, spec).keeps_zeros
        wide = weight[weight != 0].double() if keeps_zeros else weight.double()
        low, high, middle = wide.min(), wide.max(), wide.mean()
        spread = wide.std(correction=0)
        edges = torch.stack([low, middle - spread, middle, middle + spread, high])
        return cls(weight, torch.unique(edges.clamp(low, high)), means, keeps_zeros)

    @property
    def count(self) -> int:
        """How many bins there are; a weight of equal values has one."""
        return max(len(self.edges) - 1, 1)

    @property
    def entries(self) -> int:
        """How many values a LUT needs: one a bin, and 0 where zeros are kept."""
        return self.count + self.keeps_zeros

    def _counted(self) -> Tensor:
        """Which values are in a bin; bool of the weight's shape."""
        if self.keeps_zeros:
            return self.weight != 0
        return torch.ones_like(self.weight, dtype=torch.bool)

    def members(self) -> Tensor:
        """The bin of each value; int64 of the weight's shape."""
        return torch.bucketize(self.weight.double().contiguous(), self.edges[1:-1], right=True)

    def levels(self) -> Tensor:
        """The value of each bin, ``(bins,)``; an empty bin has its midpoint. float64."""
        middles = (self.edges[1:] + self.edges[:-1]) / 2 if len(self.edges) > 1 else self.edges
        if not self.means:
            return middles
        counted = self._counted()
        place, values = self.members()[counted], self.weight[counted].double()
        sums = torch.zeros_like(middles).index_add_(0, place, values)
        counts = torch.bincount(place, minlength=self.count)
        return torch.where(counts > 0, sums / counts.clamp(min=1), middles)

    def decode(self) -> Tensor:
        """The weight with the value of its bin for each value."""
        decoded = self.levels()[self.members()].to(self.weight.dtype)
        return torch.where(self._counted(), decoded, 0)

    def raise_bin(self, bin_number: int) -> Tensor:
        """The weight with the members of one bin multiplied."""
        return torch.where(self.members() == bin_number, _RAISED * self.weight, self.weight)

    def errors(self) -> Tensor:
        """The squared error of each bin, ``(bins,)``."""
        counted = self._counted()
        place = self.members()[counted]
        gaps = (self.levels()[place] - self.weight[counted].double()).square()
        return torch.zeros_like(self.levels()).index_add_(0, place, gaps)

    def cut(self, bin_number: int) -> Bins:
        """One bin more, by an edge in the middle of one."""
        low, high = self.edges[bin_number], self.edges[bin_number + 1]
        edges = torch.cat([self.edges, ((low + high) / 2)[None]]).sort().values
        return replace(self, edges=edges)

    def palette(self) -> Palette:
        """With the fewest bits that hold the bins; the last value fills the LUT."""
        levels = self.levels().to(self.weight.dtype)
        members = torch.where(self._counted(), self.members(), self.count)
        if self.keeps_zeros:
            levels = torch.nn.functional.pad(levels, (0, 1))
        bits = max((self.entries - 1).bit_length(), 1)
        lut = torch.cat([levels, levels[-1:].expand((1 << bits) - self.entries)])
        spec, shape = PaletteSpec(bits), self.weight.shape
        return to_palette(members.reshape(1, -1), lut.reshape(1, -1, 1), shape, spec)


class _Search:
    """Evaluates, and counts how often."""

    def __init__(self, how: BinQuant, probe: LossProbe, fingerprint: str) -> None:
        self._how, self._probe = how, probe
        self._cache = Cache(None if how.cache is None else Path(how.cache))
        self._key: list[object] = [__version__, fingerprint, tensor_digest(probe.samples)]
        self._key += [how.metric, probe.baseline]
        self._left = how.evaluations

    def order(self, firsts: Mapping[str, Bins]) -> list[str]:
        """Names, the largest weights first."""
        sizes = {name: bins.weight.numel() for name, bins in firsts.items()}
        of_one_size = [size for size, count in Counter(sizes.values()).items() if count > 1]
        losses = {
            name: self._loss(name, bins.decode())
            for name, bins in firsts.items()
            if sizes[name] in of_one_size and self._left
        }
        return sorted(firsts, key=lambda name: (-sizes[name], losses.get(name, 0.0)))

    def bins(self, name: str, bins: Bins, most: int) -> Bins:
        """The bins of one weight, from its first; the next evaluations are made with it binned."""
        if bins.entries > most:
            raise DkmError(
                f"{name}: bin_quant starts with {bins.entries} values, and a LUT of "
                f"{most.bit_length() - 1} bits holds {most}; use more bits"
            )
        best, least = bins, float("inf")
        sensitivities: dict[tuple[float, float], float] = {}
        while self._left:
            loss = self._loss(name, bins.decode())
            if loss <= least:
                best, least = bins, loss
            if loss <= self._how.tolerance or bins.entries == most or len(bins.edges) < 3:
                break
            bins = bins.cut(self._most_sensitive(name, bins, sensitivities))
        else:
            best = _by_error(bins, most)
        self._probe.keep(name, best.decode())
        self._key += [name, tensor_digest(best.decode())]
        return best

    def _most_sensitive(
        self, name: str, bins: Bins, known: dict[tuple[float, float], float]
    ) -> int:
        """The bin whose raised members lose the model most; of cut ones only halves are new."""
        spans: Sequence[tuple[float, float]] = list(
            zip(bins.edges[:-1].tolist(), bins.edges[1:].tolist(), strict=True)
        )
        for number, span in enumerate(spans):
            if span not in known and self._left:
                known[span] = self._loss(name, bins.raise_bin(number))
        losses = [known.get(span, float("-inf")) for span in spans]
        return losses.index(max(losses))

    def _loss(self, name: str, values: Tensor) -> float:
        key = digest((*self._key, name, tensor_digest(values)))
        self._left -= 1
        known = self._cache.take(key, float)
        if known is None:
            known = float(self._probe.loss(name, values))
            self._cache.put(key, known)
        return known


def _by_error(bins: Bins, most: int) -> Bins:
    """Cut the bin with the largest squared error until there are ``most``, or no error is left."""
    while bins.entries < most and len(bins.edges) > 1 and float(bins.errors().max()) > 0:
        bins = bins.cut(int(bins.errors().argmax()))
    return bins

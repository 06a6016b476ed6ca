"""The losses of all candidates on all weights, measured one by one and kept."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from dkm_deploy._support.measurement_cache import Cache, digest
from dkm_deploy._support.progress import track
from dkm_deploy._version import __version__
from dkm_deploy.conversion.plan_subject import Item, PlanSubject
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.planning.candidates import Candidates
from dkm_deploy.planning.sizes import Sizes


def measure_losses(
    subject: PlanSubject, candidates: Candidates, cache: Cache, console: Console
) -> dict[Item, float]:
    """The loss of each weight and candidate; 0 for a weight that stays dense.

    Args:
        subject: the model.
        candidates: of each weight.
        cache: of what was measured before.
        console: where progress is shown.
    """
    settings = (__version__, *subject.measured_on)
    keys = {
        (name, spec): digest(("loss", *settings, name, spec))
        for name, found in candidates.items()
        for spec in found
    }
    known = {item: cache.take(key, float) for item, key in keys.items()}
    losses: dict[Item, float] = {(name, None): 0.0 for name in candidates}
    losses |= {item: loss for item, loss in known.items() if loss is not None}
    missing = keys.keys() - losses.keys()
    specs = list(dict.fromkeys(spec for _, spec in keys))
    for spec in track(specs, "measuring losses", console):
        names = [name for name in candidates if (name, spec) in missing]
        for name, loss in subject.losses(spec, names) if names else ():
            cache.put(keys[name, spec], loss)
            losses[name, spec] = float(loss)
    return losses


def worth_measuring(candidates: Candidates, sizes: Sizes) -> Candidates:
    """The candidates that make a weight smaller, without those that more bits come as cheap as."""
    return {
        name: tuple(spec for spec in found if _worth(name, spec, found, sizes))
        for name, found in candidates.items()
    }


def _worth(name: str, spec: PaletteSpec, others: Sequence[PaletteSpec], sizes: Sizes) -> bool:
    size = sizes.items[name, spec]
    richer = (o for o in others if _layout(o) == _layout(spec) and o.bits > spec.bits)
    return size < sizes.items[name, None] and all(sizes.items[name, o] > size for o in richer)


def _layout(spec: PaletteSpec) -> tuple[object, ...]:
    return spec.cluster_dim, spec.axis, spec.group_size, spec.per_channel_scale

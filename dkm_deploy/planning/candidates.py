"""What a weight may become: the palettes that every target of a plan can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dkm_deploy.conversion.plan_subject import PlanSubject
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import PaletteSpec

DEFAULT: tuple[PaletteSpec, ...] = (
    *(PaletteSpec(bits) for bits in range(1, 9)),
    *(PaletteSpec(bits, group_size=16) for bits in (2, 3, 4)),
    *(PaletteSpec(bits, cluster_dim=2) for bits in (4, 6, 8)),
    *(PaletteSpec(bits, cluster_dim=4) for bits in (4, 6, 8)),
)

Candidates = Mapping[str, tuple[PaletteSpec, ...]]
"""The palettes that may be chosen for each weight, by qualified name; dense is always possible."""


def specs_of(candidates: Sequence[PaletteSpec | int]) -> tuple[PaletteSpec, ...]:
    """What a user lets a weight become. Raises DkmError for none, or what is no palette."""
    given = candidates if isinstance(candidates, Iterable) else (candidates,)
    found = tuple(PaletteSpec.of(one, "candidates") for one in given)
    if not found:
        raise DkmError("candidates is empty; give at least one dkm.PaletteSpec")
    return found


def candidates_of(
    subject: PlanSubject, specs: Sequence[PaletteSpec], targets: Sequence[str]
) -> Candidates:
    """Those of ``specs`` that fit each weight and that all targets can hold.

    Raises:
        DkmError: there are none for any weight.
    """
    found = {
        name: tuple(
            spec
            for spec in specs
            if not spec.refuse(shape) and all(subject.holds(name, spec, t) for t in targets)
        )
        for name, shape in subject.shapes.items()
    }
    if not any(found.values()):
        raise DkmError(
            f"none of {len(specs)} candidates fits any of {len(found)} weights and can be held by "
            f"{', '.join(targets)}"
        )
    return found

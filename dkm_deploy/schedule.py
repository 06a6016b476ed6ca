"""The schedule of the temperature of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dkm_deploy._support.argument_checks import integer, real
from dkm_deploy.errors import DkmError


@dataclass(frozen=True)
class Schedule:
    """Schedule of the temperature during training; :func:`dkm_deploy.step` counts the steps.

    Give either ``end`` or ``gap``. The value changes geometrically, is reached after ``steps``
    steps, and is kept from then on.

    Attributes:
        steps: number of steps until the end value is reached.
        end: final factor on every temperature; the factor starts at 1.
        gap: final ``|soft - hard| / |weight|`` of every layer. It starts at the value that the
            layer has at the first step; the temperature of the layer follows from it.

    Raises:
        DkmError: a value is out of range, or both or neither of ``end`` and ``gap`` are given.

    Example:
        >>> schedule = dkm.Schedule(steps=10, end=0.1)
        >>> recipe = dkm.Recipe(default=dkm.PaletteSpec(bits=2), schedule=schedule)
        >>> model = dkm.prepare(nn.Linear(8, 4), recipe)
        >>> before = dkm.status(model)["weight"].temperature
        >>> dkm.step(model, 10)
        >>> round(dkm.status(model)["weight"].temperature / before, 3)
        0.1
    """

    steps: int
    end: float | None = None
    gap: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", integer("steps", self.steps, 1))
        if (self.end is None) == (self.gap is None):
            raise DkmError("give either end or gap")
        for name in ("end", "gap"):
            value = getattr(self, name)
            if value is not None and real(name, value, above=0) == inf:
                raise DkmError(f"{name} is {value!r}; it must be a finite number above 0")

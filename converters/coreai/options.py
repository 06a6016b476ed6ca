"""What a user may ask of a Core AI asset."""

from __future__ import annotations

from dataclasses import dataclass

from dkm_deploy.errors import DkmError

_PRECISIONS = ("float32", "float16")


@dataclass(frozen=True)
class Options:
    """Options of an asset, see :meth:`converters.coreai.CoreAITarget.write`.

    Raises:
        DkmError: a value is out of range.
    """

    compute_precision: str = "float32"

    def __post_init__(self) -> None:
        if self.compute_precision not in _PRECISIONS:
            raise DkmError(
                f"compute_precision is {self.compute_precision!r}; "
                f"it must be one of {', '.join(_PRECISIONS)}"
            )

    @property
    def half(self) -> bool:
        """Whether to compute in float16."""
        return self.compute_precision == "float16"

"""A sequence of steps: the inputs of runs that follow each other, with state kept between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs, arguments


@dataclass(frozen=True)
class Steps:
    """Inputs of a model that keeps state, step by step; the first step starts from its own buffers.

    Where samples are counted, as for labels, the samples of the first step come first, then those
    of the second, and so on.

    Attributes:
        steps: inputs of each step, as for :func:`dkm_deploy.convert`.

    Raises:
        DkmError: there is no step, or one is not valid as inputs of a model.

    Example:
        >>> steps = dkm.Steps([(torch.zeros(1, 8),), (torch.ones(1, 8),)])
        >>> len(steps)
        2
    """

    steps: Sequence[Inputs]

    def __post_init__(self) -> None:
        if not isinstance(self.steps, (list, tuple)) or not self.steps:
            raise DkmError(
                "Steps takes a list with the inputs of each step: dkm.Steps([first, second])"
            )
        for step in self.steps:
            arguments(step)

    def __iter__(self) -> Iterator[Inputs]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def unstack_steps(inputs: Mapping[str, Tensor]) -> Steps:
    """The steps of tensors whose first dimension is the step.

    Raises:
        DkmError: the tensors have other numbers of steps, or none.
    """
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in inputs.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise DkmError(
            f"the inputs have {sorted(lengths)} steps (first dimension); "
            "all must have the same number"
        )
    (count,) = lengths
    return Steps([{name: tensor[i] for name, tensor in inputs.items()} for i in range(count)])

"""For the Hugging Face Trainer: ``Trainer(.., callbacks=[DKMCallback()])``. Needs transformers."""

from __future__ import annotations

from typing import Any

from torch import nn

from dkm_deploy.training.integrations.common import optional_import, summary
from dkm_deploy.training.prepare import require_prepared, step

_Callback: Any = optional_import("transformers", "'transformers[torch]'").TrainerCallback


# Any, because the package may be absent where types are checked.
class DKMCallback(_Callback):  # type: ignore[misc]
    """Counts the optimiser steps of a prepared model, and logs how its palettes are.

    ``dkm.prepare(model, recipe)`` comes before ``trainer.train``. To every log entry with a
    training loss it adds what :func:`dkm_deploy.training.integrations.common.summary` gives: in
    ``trainer.state.log_history``, and for callbacks that come after this one. The Trainer's
    checkpoints hold all that a resumed run needs.
    """

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, **kwargs: Any
    ) -> None:
        """Raise DkmError if the model is not prepared."""
        require_prepared(model)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, **kwargs: Any
    ) -> None:
        """Count the step, while its gradients are still there.

        Raises:
            DkmError: a weight is NaN or infinite.
        """
        step(model)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        *,
        model: nn.Module,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Add to a training log entry."""
        if "loss" in logs:
            numbers = summary(model)
            logs.update(numbers)
            state.log_history[-1].update(numbers)

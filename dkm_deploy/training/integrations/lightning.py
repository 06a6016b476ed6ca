"""For Lightning: ``Trainer(callbacks=[DKMCallback()])``. Needs the package ``lightning``."""

from __future__ import annotations

from typing import Any

from dkm_deploy.training.integrations.common import optional_import, summary
from dkm_deploy.training.prepare import require_prepared, step

_Callback: Any = optional_import("lightning.pytorch", "lightning").Callback


# Any, because the package may be absent where types are checked.
class DKMCallback(_Callback):  # type: ignore[misc]
    """Counts the steps of a prepared LightningModule, and logs how its palettes are.

    ``dkm.prepare(module, recipe)`` comes before ``trainer.fit``. A step is one of the optimiser,
    whatever the trainer accumulates; a module with several optimisers counts each (as
    ``trainer.global_step`` does). Every ``trainer.log_every_n_steps`` steps it logs what
    :func:`dkm_deploy.training.integrations.common.summary` gives. Lightning's checkpoints hold all
    that a resumed run needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counted = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start where the trainer does, which after a resume is not 0.

        Raises:
            DkmError: the module is not prepared.
        """
        require_prepared(pl_module)
        self._counted = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, if the batch ended in one.

        Raises:
            DkmError: a weight is NaN or infinite.
        """
        steps = trainer.global_step - self._counted
        if steps == 0:
            return
        step(pl_module, steps)
        self._counted = trainer.global_step
        every = trainer.log_every_n_steps
        if every and self._counted % every == 0:
            pl_module.log_dict(summary(pl_module))

"""A run over epochs of data that stands, at any time, where its checkpoint says or further on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils import random_state
from dkm_deploy.training.loop.resume import HasState, Position, RunFile, setup_of
from dkm_deploy.training.loop.step import TrainingStep

Data = Iterable[Any] | Callable[[int], Iterable[Any]]
"""Batches, to be iterated once an epoch; or a function from the epoch (from 0) to its batches."""

Show = Callable[[float, str], None]
"""Takes the epochs done, with a fraction, and a note."""


class Run:
    """Steps through the data, epoch by epoch, and writes checkpoints.

    Attributes:
        position: where it stands.
        resumed_from: step of the checkpoint it went on from; None for a new run.
    """

    def __init__(
        self,
        step: TrainingStep,
        data: Data,
        every: int,
        after_step: Callable[[int, float], None] | None,
    ) -> None:
        self.position = Position()
        self.resumed_from: int | None = None
        self._step, self._data, self._every, self._after_step = step, data, every, after_step
        self._generators = random_state.generators_of(data)
        self._file: RunFile | None = None
        self._saved = 0  # step that the file holds
        # Random states to go back to: at the start of the epoch, and at the position in it.
        self._resumed: tuple[random_state.Snapshot, random_state.Snapshot] | None = None

    def keep_in(self, path: Path, options: Mapping[str, object]) -> None:
        """Go on from the checkpoint if there is one, and write to it from now on.

        Args:
            path: the checkpoint.
            options: what else must be as it was for the run to go on as if never killed.

        Raises:
            DkmError: the checkpoint is damaged or of another run, and nothing is changed; or it
                cannot be written.
        """
        step = self._step
        parts: dict[str, HasState] = {"model": step.model, "optimizer": step.optimizer}
        if step.scheduler is not None:
            parts["scheduler"] = step.scheduler
        options = {**options, "batches in an epoch": length(self._data)}
        setup = setup_of(step.model, parts, step.objective.teacher, options)
        self._file = RunFile(path, setup, parts, self._generators)
        if not path.exists():
            self._file.write(self.position, random_state.snapshot(self._generators))
            self._file.read()  # a state that cannot be read back shall show before any work
            return
        state = self._file.read()
        self.position = self._file.resume(state)
        self.resumed_from = self._saved = self.position.step
        self._resumed = state["epoch_start"], state["now"]

    def epoch(self, show: Show) -> None:
        """Train on what is left of the epoch.

        Raises:
            DkmError: there is no batch, fewer than before the kill, or a step failed.
        """
        if self._resumed:
            random_state.restore(self._resumed[0], self._generators)
        start = random_state.snapshot(self._generators)
        batches = self._data(self.position.epoch) if callable(self._data) else self._data
        for batch in self._left(batches):
            loss = self._checked(batch)
            at = self.position
            self.position = Position(at.epoch, at.batch + 1, at.step + 1, loss)
            if self._after_step is not None:
                self._after_step(self.position.step, loss)
            if self._file and self.position.step % self._every == 0:
                self._write(start)
            show(self._done(batches), f"step {self.position.step}, loss {loss:.4g}")
        if self.position.batch == 0:
            raise DkmError(
                f"data gave no batch in epoch {self.position.epoch + 1}; it must give batches each "
                "time it is iterated (a list, a DataLoader, or a function of the epoch)"
            )
        self.position = replace(self.position, epoch=self.position.epoch + 1, batch=0)

    def save(self) -> None:
        """Write the checkpoint at the end of an epoch, unless it holds this step already."""
        if self._file and self._saved != self.position.step:
            self._write(random_state.snapshot(self._generators))

    def _left(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches after the position, with the random states as they were there."""
        iterator = iter(batches)
        found = sum(1 for _ in islice(iterator, self.position.batch))
        if found < self.position.batch:
            raise DkmError(
                f"data has {found} batches in epoch {self.position.epoch + 1}, and the checkpoint "
                f"was written after {self.position.batch}; give the data it was made with"
            )
        if self._resumed and found:  # before the first batch the iterator draws, and shall again
            random_state.restore(self._resumed[1], self._generators)
        self._resumed = None
        return iterator

    def _checked(self, batch: Any) -> float:
        try:
            return self._step(batch, self.position.step + 1)
        except DkmError as error:
            if self._file is None:
                raise
            raise DkmError(f"{error}; {self._file.path} keeps step {self._saved}") from error

    def _write(self, epoch_start: random_state.Snapshot) -> None:
        if self._file is not None:
            self._file.write(self.position, epoch_start)
            self._saved = self.position.step

    def _done(self, batches: Iterable[Any]) -> float:
        count = length(batches)
        return self.position.epoch + (self.position.batch / count if count else 0)


def length(data: object) -> int | None:
    """How many batches there are, or None if the data does not say."""
    return len(data) if isinstance(data, Sized) else None

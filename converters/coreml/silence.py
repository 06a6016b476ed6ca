"""Keep coremltools off the user's terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dkm_deploy._support.silence import quiet


@contextmanager
def silent() -> Iterator[None]:
    """Keep coremltools' warnings, log lines and progress bars off the user's terminal."""
    import tqdm  # type: ignore[import-untyped]  # coremltools draws its bars with it

    original = tqdm.tqdm.__init__

    def disabled(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "disable": True})

    tqdm.tqdm.__init__ = disabled
    try:
        with quiet():
            yield
    finally:
        tqdm.tqdm.__init__ = original

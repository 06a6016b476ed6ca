"""silero-vad, which says whether 32 ms of sound hold speech: an LSTM behind an If, with a state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.pypi_models.case import Array, Case
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime

# As the package's OnnxWrapper has it for 8 kHz: samples of a window, and those before it.
_RATE, _WINDOW, _CONTEXT = 8000, 256, 32
_WINDOWS = 500


def speech(package: Path, data: Path | None) -> Iterator[Case]:
    """The model on windows of speech and silence, each with the state that the original had."""
    clips = data / "fsdd" / "fsdd_8k.npz" if data else None
    sound = _digits(clips) if clips and clips.exists() else _buzz()
    told = "spoken digits" if clips and clips.exists() else "synthesized speech"
    path = package / "silero_vad" / "data" / "silero_vad.onnx"
    windows, states = _with_states(path, sound)
    yield Case(
        path.stem,
        path,
        {"input": torch.from_numpy(windows), "state": states, "sr": np.array(_RATE)},
        lambda output: output[:, 0] > 0.5,
        lambda output, answers: 100 * float(np.mean((output[:, 0] > 0.5) == answers)),
        f"{_WINDOWS} windows of {told}; same side of 0.5",
    )


def _with_states(path: Path, sound: Array) -> tuple[Array, Array]:
    """Windows ``(n, 288)`` with what comes before, and the state ``(2, n, 128)`` before each."""
    session = runtime.load(path)
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(_CONTEXT, np.float32)
    windows, states = [], []
    for window in sound[: _WINDOWS * _WINDOW].reshape(_WINDOWS, _WINDOW):
        windows.append(np.concatenate([context, window]))
        states.append(state)
        given = {"input": windows[-1][None], "state": state, "sr": np.array(_RATE)}
        state, context = session.run(given)["stateN"], window[-_CONTEXT:]
    return np.stack(windows), np.concatenate(states, 1)


def _digits(clips: Path) -> Array:
    """Spoken digits of all speakers with half a second of faint noise after each."""
    with np.load(clips) as table:
        ends = np.cumsum(table["length"])
        pcm, starts = table["pcm"].astype(np.float32) / 2**15, ends - table["length"]
    random, parts = np.random.default_rng(0), []
    for clip in random.permutation(len(ends))[:60]:
        noise = 1e-3 * random.normal(size=_RATE // 2).astype(np.float32)
        parts += [pcm[starts[clip] : ends[clip]], noise]
    return np.concatenate(parts)


def _buzz() -> Array:
    """Harmonics of a falling voice through two formants, half a second on and half a second off."""
    time = np.arange(_WINDOWS * _WINDOW) / _RATE
    pitch = 120 - 20 * (time % 1)
    phase = 2 * np.pi * np.cumsum(pitch) / _RATE
    peaks = [(700, 0.5), (1200, 0.3)]
    sound = np.zeros(len(time))
    for harmonic in range(1, 30):
        gain = sum(size / (1 + ((harmonic * 110 - peak) / 80) ** 2) for peak, size in peaks)
        sound += gain * np.sin(harmonic * phase)
    noise = 1e-3 * np.random.default_rng(0).normal(size=len(time))
    return (0.3 * sound * (time % 1 < 0.5) + noise).astype(np.float32)

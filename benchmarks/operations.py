"""Write ``docs/operations.md``: which operations each target has, as its registers say.

Run ``python -m benchmarks.operations > docs/operations.md`` from the project's root, with the extra
for Core AI installed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from coremltools.converters.mil._deployment_compatibility import AvailableTarget
from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from torch._export.utils import _collect_all_valid_cia_ops
from torch._ops import OpOverloadPacket
from torch.onnx._internal.exporter._registration import ONNXRegistry

from benchmarks.process import versions
from converters.coreai.decompositions.table import decompositions, is_lowered
from converters.coreml.decompositions.decompose import always_apart, torch_decompositions
from converters.coreml.lowering.lower import known_calls
from dkm_deploy.formats.mlpackage.constexpr import DECODERS
from dkm_deploy.runtimes.mlprogram.compile import CONTROL
from dkm_deploy.runtimes.mlprogram.kernels import KERNELS

LOWERED, APART, REFUSED = "lowered", "taken apart", "refused"
_TARGETS = ("Core ML", "Core AI", "ONNX")
Fates = tuple[str, str, str]

_HEAD = """# Operations by target

Which operations each target has, as its registers say, with {versions}. Written by
`python -m benchmarks.operations > docs/operations.md`; a test compares.

## The ML program evaluator

Operations of ML programs that `dkm.MLProgramEvaluator` computes, by the first deployment target
that has them:
"""
_CALLS = """## Calls of PyTorch

Calls that `torch.export` leaves in a program, by their names in `torch.ops.aten`. Where the
overloads of a call differ, they are named.

- **lowered**: the target's front end, or ours, writes operations for it. A form of it may still be
  refused, such as an odd argument.
- **taken apart**: into other calls by our or PyTorch's decompositions; these must be known in turn.
- **refused**: by the name of the call and of the layer.
"""
_REST = """
Calls that no target has an operation for:
"""
_NO_FORMS = {"write_state": "iOS18"}  # comes about when coremltools writes a file
_OF_TRAINING = ("backward", "_foreach", "_fused_adam")
_OF_ODD_TENSORS = ("sparse", "nested", "jagged", "hacked_twin", "_cslt", "fbgemm", "quantized_")
_OF_DEVICES = ("cudnn", "miopen", "mkldnn", "_mps")
_OF_OTHERS = ("_test_", "_out", ".out")
_NOT_OF_MODELS = (*_OF_TRAINING, *_OF_ODD_TENSORS, *_OF_DEVICES, *_OF_OTHERS)


def main() -> None:
    """Print the page."""
    print("\n".join(page()))


def installed() -> str:
    """The versions that the page depends on."""
    return versions("torch", "coremltools", "coreai-torch", "onnxscript")


def page() -> Iterator[str]:
    """The lines of the page."""
    yield _HEAD.format(versions=installed())
    yield "| since | operations |"
    yield "|---|---|"
    for since, names in evaluator_operations().items():
        yield f"| {since} | {', '.join(f'`{name}`' for name in names)} |"
    yield ""
    yield _CALLS
    yield f"| call | {' | '.join(_TARGETS)} |"
    yield f"|---|{'---|' * len(_TARGETS)}"
    fates = {name: merged(forms) for name, forms in sorted(_calls().items())}
    rest: dict[Fates, list[str]] = defaultdict(list)
    for name, cells in fates.items():
        if any(LOWERED in cell for cell in cells):
            yield f"| `{name}` | {' | '.join(cells)} |"
        elif not name.startswith("_"):
            rest[cells].append(name)
    yield _REST
    yield f"| {' | '.join(_TARGETS)} | calls |"
    yield f"|{'---|' * len(_TARGETS)}---|"
    for cells, names in sorted(rest.items(), key=lambda item: (-len(item[1]), item)):
        yield f"| {' | '.join(cells)} | {', '.join(f'`{name}`' for name in names)} |"


def evaluator_operations() -> Mapping[str, list[str]]:
    """Operations that the evaluator computes, by the name of their first target."""
    first_programs = AvailableTarget.iOS15
    by_target: dict[str, list[str]] = defaultdict(list)
    for name in sorted({*KERNELS, *CONTROL, *DECODERS}):
        forms = SSAOpRegistry.core_ops.get(name)
        since = max(min(forms), first_programs).name if forms else _NO_FORMS[name]
        by_target[since].append(name)
    return dict(sorted(by_target.items()))


def _calls() -> dict[str, dict[str, Fates]]:
    """What becomes of each overload of each call in each target."""
    of_coreml, of_coreai, of_onnx = known_calls(), decompositions(), ONNXRegistry.from_torchlib()
    ours, torchs = always_apart(), torch_decompositions()

    def fates(call: Any) -> Fates:
        coreml = sanitize_op_kind(call.name()) in of_coreml and call not in ours
        coreai = is_lowered(call) and call not in of_coreai
        onnx = of_onnx.is_registered(call)
        return (
            _fate(coreml, call in ours or call in torchs),
            _fate(coreai, call in of_coreai),
            _fate(onnx, call in torchs),
        )

    found: dict[str, dict[str, Fates]] = defaultdict(dict)
    for call in _exported_calls():
        name, _, overload = call.name().removeprefix("aten::").partition(".")
        found[name][overload or "default"] = fates(call)
    return found


def _fate(lowered: bool, apart: bool) -> str:
    return LOWERED if lowered else APART if apart else REFUSED


def _exported_calls() -> Iterator[Any]:
    """ATen calls that ``torch.export`` can leave in a program of a model."""
    kept = _collect_all_valid_cia_ops()
    registered = set(torch._C._dispatch_get_all_op_names())  # the others are of TorchScript
    packets: list[Any] = [getattr(torch.ops.aten, name) for name in dir(torch.ops.aten)]
    for packet in packets:
        if isinstance(packet, OpOverloadPacket):
            names: list[str] = packet.overloads()  # type: ignore[no-untyped-call]
            for call in [getattr(packet, name) for name in names]:
                if call.name() not in registered or not _is_of_models(call):
                    continue
                if call in kept or not call._can_decompose():
                    yield call


def _is_of_models(call: Any) -> bool:
    """Whether a call makes tensors, changes none, and is none of training or of odd tensors."""
    schema = call._schema
    kinds = [str(value.type) for value in (*schema.arguments, *schema.returns)]
    name = call.name().removeprefix("aten::")
    return (
        any("Tensor" in str(value.type) for value in schema.returns)
        and not schema.is_mutable
        and not any("Dimname" in kind or "Storage" in kind for kind in kinds)
        and not any(part in name for part in _NOT_OF_MODELS)
    )


def merged(forms: Mapping[str, Fates]) -> Fates:
    """What becomes of a call: once if it is the same for all overloads, else with their names."""
    columns = zip(*forms.values(), strict=True)
    coreml, coreai, onnx = (_cell(dict(zip(forms, column, strict=True))) for column in columns)
    return coreml, coreai, onnx


def _cell(fates: Mapping[str, str]) -> str:
    if len(set(fates.values())) == 1:
        return next(iter(fates.values()))
    named = []
    for fate in (LOWERED, APART, REFUSED):
        overloads = [f"`{name}`" for name, found in fates.items() if found == fate]
        named += [f"{fate}: {', '.join(overloads)}"] if overloads else []
    return "; ".join(named)


if __name__ == "__main__":
    main()

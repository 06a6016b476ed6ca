from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dkm_deploy.nn_utils.state_guard import own_copies, rewind_state, run_copy, written_buffers
from tests.conversion import test_model_state as states

KINDS = [*states.STATES, *states.REFUSED]


def _all(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers(), model.plain]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_of_the_model_changes_and_state_lasts_in_the_copy(kind):
    model, x = kind(), torch.ones(1, 4)
    kept = [(t, t.clone(), t.data_ptr()) for t in _all(model)]
    with torch.no_grad(), run_copy(model) as copied:
        assert not any(module.training for module in copied.modules())
        first = copied(own_copies(x)).clone()
        second = copied(own_copies(x))
        changes = written_buffers(model, copied)
    assert all(module.training for module in model.modules())
    for tensor, (same, before, place) in zip(_all(model), kept, strict=True):
        assert tensor is same
        assert torch.equal(tensor, before)
        assert tensor.data_ptr() == place
    assert (model.calls, model.past) == (0, [])
    assert torch.equal(x, torch.ones(1, 4))
    assert torch.equal(first, second) == (kind in (states.Input, states.OnlyCounting))
    in_buffer = set(states.STATES) | {states.Behind, states.BehindAssigned, states.BufferAndNumber}
    assert bool(changes) == (kind in in_buffer)


def test_parameters_share_their_memory_with_a_model_in_eval_mode():
    model = nn.Linear(4, 4).eval()
    with run_copy(model) as copied:
        assert copied.weight is not model.weight
        assert copied.weight.data_ptr() == model.weight.data_ptr()


def test_a_parameter_that_forward_writes_is_put_back_when_it_raises():
    class Fails(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.weight.mul_(2)
            raise ValueError(x)

    model = Fails(4, 4).eval()
    before = model.weight.clone()
    with pytest.raises(ValueError, match="tensor"), run_copy(model) as copied:
        copied(torch.ones(4))
    assert torch.equal(model.weight, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.utils.weight_norm(nn.Linear(4, 4)),
        lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
        lambda: torch.compile(nn.Linear(4, 4), backend="eager"),
        lambda: nn.DataParallel(nn.Linear(4, 4)),
        lambda: torch.jit.script(nn.Linear(4, 4)),
        lambda: torch.export.export(nn.Linear(4, 4), (torch.ones(1, 4),)).module(),
    ],
    ids=["weight_norm", "spectral_norm", "compiled", "parallel", "scripted", "exported"],
)
def test_models_of_other_makes_run_as_copies(make):
    model, x = make(), torch.ones(1, 4)
    with torch.no_grad(), run_copy(model) as copied:
        outputs = copied(x)
        for module in model.modules():
            module.training = False
        assert torch.equal(outputs, model(x))


@pytest.mark.parametrize("kind", [states.Copied, states.Assigned, states.BehindAssigned])
def test_a_rewound_model_starts_again(kind):
    model = kind()
    with torch.no_grad():
        for _ in range(2):
            with rewind_state(model):
                outputs = model(torch.ones(1, 4)).clone()
            assert torch.equal(outputs, model.fc(torch.ones(1, 4)))

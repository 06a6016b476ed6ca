"""State: what forward writes is kept where a target can, refused by name elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.conversion.export import export

RECIPE = dkm.Recipe(dkm.PaletteSpec(bits=2), [dkm.Rule("p", skip=True)])
X = torch.ones(1, 4)


class Base(nn.Module):
    """A layer and one of everything that forward may write to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 16)
        self.register_buffer("h", torch.zeros(1, 16))
        self.register_buffer("loose", torch.zeros(1, 16), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.p = nn.Parameter(torch.zeros(1, 16))
        self.plain = torch.zeros(1, 16)
        self.calls = 0
        self.past: list[Tensor] = []


class Copied(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) + self.h
        self.h.copy_(y)
        return y


class Assigned(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.h = self.fc(x) + self.h
        return self.h


class Sliced(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.h[:, :8] = self.fc(x)[:, :8] + self.h[:, 8:]
        self.h[:, 8:] = self.h[:, :8] * 0.5
        return self.h * 1.0


class ByIndex(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.h.index_copy_(1, torch.tensor([0, 3]), self.fc(x)[:, :2] + self.h[:, :2])
        return self.h * 1.0


class ThroughAView(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) + self.h
        self.h.detach().view(16)[2:].add_(y[0, 2:])
        return y


class Loose(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) + self.loose
        self.loose.copy_(y)
        return y


class Counting(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.fc(x) * self.count


class OnlyCounting(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.fc(x)


STATES = {
    Copied: "h",
    Assigned: "h",
    Sliced: "h",
    ByIndex: "h",
    ThroughAView: "h",
    Loose: "loose",
    Counting: "count",
    OnlyCounting: "count",
}


@pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.__name__)
def test_a_buffer_that_forward_writes_is_found_and_starts_as_the_model_has_it(kind):
    frozen = dkm.palettize(kind().eval(), RECIPE)
    with torch.no_grad():
        frozen.get_buffer(STATES[kind]).fill_(3)
    exported = export(frozen, X)
    assert list(exported.states) == [STATES[kind]]
    start = exported.states[STATES[kind]]
    assert torch.equal(start, torch.full_like(start, 3))


@pytest.mark.parametrize("suffix", ["onnx", "ort", "aimodel"])
def test_a_target_that_keeps_nothing_refuses_by_the_buffers_name(tmp_path, suffix):
    path = tmp_path / f"net.{suffix}"
    with pytest.raises(dkm.DkmError, match=r"^h: forward writes .* an input and an output"):
        dkm.convert(dkm.palettize(Copied(), RECIPE), X, path)
    assert not path.exists()


class InPlain(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) + self.plain
        self.plain.copy_(y)
        return y


class PlainAssigned(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.plain = self.fc(x) + self.plain
        return self.plain


class Number(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(x) * self.calls


class Listed(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.past.append(self.fc(x))
        return torch.stack(self.past).sum(0)


class Parameter(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) + self.p
        with torch.no_grad():
            self.p.copy_(y)
        return y


class Behind(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) + self.h
        self.h.data.copy_(y)
        return y


class BehindAssigned(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) + self.h
        self.h.data = y
        return y


class Input(Base):
    def forward(self, x: Tensor) -> Tensor:
        x.add_(1)
        return self.fc(x)


class BufferAndNumber(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.h.add_(self.fc(x))
        return self.h * self.calls


REFUSED = {
    InPlain: "Constant plain is mutated",
    PlainAssigned: r"no buffer holds what it keeps \(plain\)",
    Number: r"no buffer holds what it keeps \(calls\)",
    Listed: r"no buffer holds what it keeps \(past\)",
    Parameter: "^p: forward writes to this parameter",
    Behind: "forward writes to h: do so with copy_",
    BehindAssigned: "^h: forward writes to this buffer in a way that torch.export does not see",
    Input: r"^input 'x': forward writes to it in place.* x = x.clone\(\)",
    BufferAndNumber: r"no buffer holds what it keeps \(calls\)",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_state_that_no_file_could_keep_is_refused(kind):
    with pytest.raises(dkm.DkmError, match=REFUSED[kind]):
        export(dkm.palettize(kind().eval(), RECIPE), X)


class Remembers(Base):
    """What it keeps is for others to look at; no output depends on it."""

    def forward(self, x: Tensor) -> Tensor:
        self.plain = self.fc(x.clone().mul_(2))
        self.calls += 1
        return self.plain * 1.0


def test_a_model_that_only_leaves_values_behind_keeps_no_state():
    assert not export(dkm.palettize(Remembers(), RECIPE), X).states

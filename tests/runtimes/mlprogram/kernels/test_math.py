"""Operators that compute, against torch: products, norms, activations, elementwise, reductions."""

import pytest
import torch
from torch.nn import functional as f

from tests.formats.mlpackage.packages import Family, mb, n, rand

B = rand(6)
LIN = rand(3, 8)
GAMMA = rand(8)
GAMMA2 = rand(5, 8)
COND = rand(2, 5, 8) > 0
MASK = rand(5, 5) > -0.5
QK = rand(2, 5, 8)


CASES = {  # x: (2, 5, 8)
    "linear": (
        lambda x: mb.linear(x=x, weight=n(LIN), bias=n(B[:3])),
        lambda x: f.linear(x, LIN, B[:3]),
    ),
    "linear_no_bias": (lambda x: mb.linear(x=x, weight=n(LIN)), lambda x: f.linear(x, LIN)),
    "matmul": (
        lambda x: mb.matmul(x=x, y=x, transpose_y=True),
        lambda x: x @ x.mT,
    ),
    "matmul_transposed": (
        lambda x: mb.matmul(x=x, y=n(QK), transpose_x=True),
        lambda x: x.mT @ QK,
    ),
    "einsum": (
        lambda x: mb.einsum(
            values=(mb.expand_dims(x=x, axes=[2]), n(QK.mT[:, :, None])), equation="abcd,adce->abce"
        ),
        lambda x: (x @ QK.mT)[:, :, None],
    ),
    "attention": (
        lambda x: mb.scaled_dot_product_attention(query=x, key=n(QK), value=x),
        lambda x: torch.softmax(x @ QK.mT / 8**0.5, -1) @ x,
    ),
    "attention_bool_mask": (
        lambda x: mb.scaled_dot_product_attention(query=x, key=n(QK), value=x, attn_mask=n(MASK)),
        lambda x: torch.softmax((x @ QK.mT / 8**0.5).masked_fill(~MASK, -torch.inf), -1) @ x,
    ),
    "attention_float_mask": (
        lambda x: mb.scaled_dot_product_attention(
            query=x, key=x, value=x, attn_mask=n(QK[0, :, :5])
        ),
        lambda x: torch.softmax(x @ x.mT / 8**0.5 + QK[0, :, :5], -1) @ x,
    ),
    "layer_norm": (
        lambda x: mb.layer_norm(x=x, axes=[-1], gamma=n(GAMMA), beta=n(GAMMA), epsilon=1e-3),
        lambda x: f.layer_norm(x, [8], GAMMA, GAMMA, 1e-3),
    ),
    "layer_norm_two": (
        lambda x: mb.layer_norm(x=x, axes=[1, 2], gamma=n(GAMMA2)),
        lambda x: f.layer_norm(x, [5, 8], GAMMA2),
    ),
    "layer_norm_inner": (
        lambda x: mb.layer_norm(x=x, axes=[1], gamma=n(B[:5]), beta=n(B[:5])),
        lambda x: f.layer_norm(x.mT, [5], B[:5], B[:5]).mT,
    ),
    "gelu": (lambda x: mb.gelu(x=x, mode="EXACT"), f.gelu),
    "gelu_tanh": (
        lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        lambda x: f.gelu(x, approximate="tanh"),
    ),
    "gelu_sigmoid": (
        lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
        lambda x: x * torch.sigmoid(1.702 * x),
    ),
    "relu": (lambda x: mb.relu(x=x), torch.relu),
    "relu6": (lambda x: mb.relu6(x=mb.mul(x=x, y=4.0)), lambda x: f.relu6(x * 4)),
    "clip": (lambda x: mb.clip(x=x, alpha=-0.5, beta=0.7), lambda x: x.clamp(-0.5, 0.7)),
    "clamped_relu": (
        lambda x: mb.clamped_relu(x=x, alpha=0.1, beta=0.8),
        lambda x: torch.where(x >= 0, x, 0.1 * x).clamp(max=0.8),
    ),
    "elu": (lambda x: mb.elu(x=x, alpha=0.7), lambda x: f.elu(x, 0.7)),
    "leaky_relu": (lambda x: mb.leaky_relu(x=x, alpha=0.2), lambda x: f.leaky_relu(x, 0.2)),
    "linear_activation": (
        lambda x: mb.linear_activation(x=x, alpha=2.0, beta=-1.0),
        lambda x: 2 * x - 1,
    ),
    "scaled_tanh": (
        lambda x: mb.scaled_tanh(x=x, alpha=2.0, beta=0.5),
        lambda x: 2 * torch.tanh(0.5 * x),
    ),
    "sigmoid": (lambda x: mb.sigmoid(x=x), torch.sigmoid),
    "sigmoid_hard": (
        lambda x: mb.sigmoid_hard(x=x, alpha=0.3, beta=0.4),
        lambda x: (0.3 * x + 0.4).clamp(0, 1),
    ),
    "silu": (lambda x: mb.silu(x=x), f.silu),
    "softmax": (lambda x: mb.softmax(x=x, axis=1), lambda x: x.softmax(1)),
    "softplus": (lambda x: mb.softplus(x=x), f.softplus),
    "softplus_parametric": (
        lambda x: mb.softplus_parametric(x=x, alpha=n(B[:5]), beta=n(B[:5].abs())),
        lambda x: B[:5, None] * torch.log1p(torch.exp(B[:5, None].abs() * x)),
    ),
    "softsign": (lambda x: mb.softsign(x=x), f.softsign),
    "thresholded_relu": (
        lambda x: mb.thresholded_relu(x=x, alpha=0.4),
        lambda x: torch.where(x >= 0.4, x, 0),
    ),
    "tanh": (lambda x: mb.tanh(x=x), torch.tanh),
    "erf": (lambda x: mb.erf(x=x), torch.erf),
    "exp": (lambda x: mb.exp(x=x), torch.exp),
    "log": (lambda x: mb.log(x=mb.abs(x=x), epsilon=0.5), lambda x: (x.abs() + 0.5).log()),
    "sqrt": (lambda x: mb.sqrt(x=mb.abs(x=x)), lambda x: x.abs().sqrt()),
    "rsqrt": (lambda x: mb.rsqrt(x=mb.abs(x=x), epsilon=0.5), lambda x: (x.abs() + 0.5).rsqrt()),
    "inverse": (lambda x: mb.inverse(x=mb.square(x=x), epsilon=0.5), lambda x: 1 / (x * x + 0.5)),
    "square": (lambda x: mb.square(x=x), torch.square),
    "sin": (lambda x: mb.sin(x=x), torch.sin),
    "cos": (lambda x: mb.cos(x=x), torch.cos),
    "tan": (lambda x: mb.tan(x=mb.mul(x=x, y=0.2)), lambda x: torch.tan(x * 0.2)),
    "asin": (lambda x: mb.asin(x=mb.tanh(x=x)), lambda x: torch.asin(torch.tanh(x))),
    "acos": (lambda x: mb.acos(x=mb.mul(x=x, y=0.1)), lambda x: torch.acos(x * 0.1)),
    "atan": (lambda x: mb.atan(x=x), torch.atan),
    "sinh": (lambda x: mb.sinh(x=x), torch.sinh),
    "cosh": (lambda x: mb.cosh(x=x), torch.cosh),
    "atanh": (lambda x: mb.atanh(x=mb.mul(x=x, y=0.1)), lambda x: torch.atanh(x * 0.1)),
    "exp2": (lambda x: mb.exp2(x=x), torch.exp2),
    "floor": (lambda x: mb.floor(x=x), torch.floor),
    "ceil": (lambda x: mb.ceil(x=x), torch.ceil),
    "threshold": (lambda x: mb.threshold(x=x, alpha=0.3), lambda x: x.clamp(min=0.3)),
    "not_equal": (
        lambda x: mb.not_equal(x=mb.round(x=x), y=1.0),
        lambda x: (x.round() != 1).float(),
    ),
    "round": (lambda x: mb.round(x=x), torch.round),
    "sign": (lambda x: mb.sign(x=x), torch.sign),
    "add": (lambda x: mb.add(x=x, y=n(GAMMA)), lambda x: x + GAMMA),
    "sub": (lambda x: mb.sub(x=n(GAMMA), y=x), lambda x: GAMMA - x),
    "mul": (lambda x: mb.mul(x=x, y=0.5), lambda x: x * 0.5),
    "real_div": (lambda x: mb.real_div(x=x, y=n(GAMMA)), lambda x: x / GAMMA),
    "floor_div": (lambda x: mb.floor_div(x=x, y=0.3), lambda x: x // 0.3),
    "mod": (lambda x: mb.mod(x=x, y=0.7), lambda x: x % 0.7),
    "pow": (lambda x: mb.pow(x=mb.abs(x=x), y=1.5), lambda x: x.abs() ** 1.5),
    "maximum": (lambda x: mb.maximum(x=x, y=0.1), lambda x: x.clamp(min=0.1)),
    "minimum": (lambda x: mb.minimum(x=x, y=n(GAMMA)), lambda x: torch.minimum(x, GAMMA)),
    "compare": (
        lambda x: mb.logical_or(
            x=mb.logical_and(x=mb.greater(x=x, y=0.0), y=mb.less(x=x, y=1.0)),
            y=mb.logical_not(x=mb.greater_equal(x=x, y=-1.0)),
        ),
        lambda x: (((x > 0) & (x < 1)) | ~(x >= -1)).float(),
    ),
    "equal": (
        lambda x: mb.logical_xor(x=mb.equal(x=mb.round(x=x), y=0.0), y=mb.less_equal(x=x, y=0.0)),
        lambda x: ((x.round() == 0) ^ (x <= 0)).float(),
    ),
    "select": (
        lambda x: mb.select(cond=n(COND), a=x, b=n(QK)),
        lambda x: torch.where(COND, x, QK),
    ),
    "cast": (
        lambda x: mb.cast(x=mb.cast(x=mb.mul(x=x, y=3.0), dtype="int32"), dtype="fp32"),
        lambda x: (x * 3).int().float(),
    ),
    "reduce_mean": (
        lambda x: mb.reduce_mean(x=x, axes=[-1, 0], keep_dims=True),
        lambda x: x.mean((0, 2), keepdim=True),
    ),
    "reduce_sum": (lambda x: mb.reduce_sum(x=x, axes=[1], keep_dims=False), lambda x: x.sum(1)),
    "reduce_sum_all": (lambda x: mb.reduce_sum(x=x), lambda x: x.sum()),
    "reduce_max": (lambda x: mb.reduce_max(x=x, axes=[2]), lambda x: x.amax(2)),
    "reduce_min": (lambda x: mb.reduce_min(x=x, axes=[0, 1]), lambda x: x.amin((0, 1))),
    "reduce_prod": (lambda x: mb.reduce_prod(x=x, axes=[1, 2]), lambda x: x.prod(2).prod(1)),
    "reduce_l1": (lambda x: mb.reduce_l1_norm(x=x, axes=[1]), lambda x: x.abs().sum(1)),
    "reduce_l2": (lambda x: mb.reduce_l2_norm(x=x, axes=[1]), lambda x: x.norm(dim=1)),
    "reduce_square": (lambda x: mb.reduce_sum_square(x=x, axes=[1]), lambda x: (x * x).sum(1)),
    "reduce_lse": (lambda x: mb.reduce_log_sum_exp(x=x, axes=[1]), lambda x: x.logsumexp(1)),
    "reduce_log_sum": (
        lambda x: mb.reduce_log_sum(x=mb.abs(x=x), axes=[-1], keep_dims=False),
        lambda x: x.abs().sum(-1).log(),
    ),
    "reduce_argmax": (lambda x: mb.reduce_argmax(x=x, axis=1), lambda x: x.argmax(1)),
    "reduce_argmin": (
        lambda x: mb.reduce_argmin(x=x, axis=-1, keep_dims=True),
        lambda x: x.argmin(-1, keepdim=True),
    ),
    "argsort": (lambda x: mb.argsort(x=x, axis=1), lambda x: x.argsort(1, descending=True)),
    "topk": (lambda x: mb.topk(x=x, k=3, axis=1)[0], lambda x: x.topk(3, 1).values),
    "topk_indices": (
        lambda x: mb.topk(x=x, k=2, axis=-1, ascending=True)[1],
        lambda x: x.topk(2, -1, largest=False).indices,
    ),
    "cumsum": (lambda x: mb.cumsum(x=x, axis=1), lambda x: x.cumsum(1)),
    "cumsum_reverse": (
        lambda x: mb.cumsum(x=x, axis=2, exclusive=True, reverse=True),
        lambda x: x.flip(2).cumsum(2).flip(2) - x,
    ),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return Family(tmp_path_factory.mktemp("ops"), CASES, (2, 5, 8))


@pytest.mark.parametrize("name", CASES)
def test_matches_torch(family, name):
    family.check(name)


def test_the_file_holds_the_operations(family):
    """The numbers above come from these operations, not from others that a pass put there."""
    assert family.count("gelu") == 3
    assert family.count("scaled_dot_product_attention") == 3
    assert family.count("layer_norm") == 3
    assert family.count("relu6") == family.count("sigmoid_hard") == family.count("silu") == 1
    assert family.count("reduce_sum") == 2

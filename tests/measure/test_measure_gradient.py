"""Lengths and angles of tuples of tensors, against torch in float64."""

import math

import pytest
import torch

from bnlab.measure.gradient import cosine, distance, norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 3.0, 1e15])
@pytest.mark.parametrize("turn", [0.0, 1e-3, 0.4, 10.0])
def test_against_flat_float64_vectors(dtype, scale, turn):
    """Also for lengths that differ by 15 orders of magnitude, and squares that float32 cannot hold."""
    torch.manual_seed(0)
    shapes = [(3, 4), (5,), (2, 3, 2, 2)]
    a = [torch.randn(s, dtype=dtype) for s in shapes]
    for sign in (1, -1):
        b = [sign * scale * (x + turn * torch.randn_like(x)) for x in a]
        flat_a, flat_b = (torch.cat([x.flatten() for x in t]).double() for t in (a, b))
        exact = torch.nn.functional.cosine_similarity(flat_a, flat_b / scale, dim=0).item()
        tolerance = 1e-6 if dtype == torch.float32 else 1e-14
        assert cosine(a, b, norm(a), norm(b), distance(a, b)) == pytest.approx(exact, abs=tolerance)
        assert norm(b) == pytest.approx(flat_b.norm().item(), rel=1e-12)
        assert distance(a, b) == pytest.approx((flat_a - flat_b).norm().item(), rel=1e-4)


def test_equal_opposite_zero_and_not_finite():
    a = [torch.randn(4, 3), torch.randn(7)]
    assert cosine(a, a, norm(a), norm(a), 0.0) == 1
    opposite = [-x for x in a]
    assert -1 <= cosine(a, opposite, norm(a), norm(opposite), 2 * norm(a)) <= -1 + 1e-6
    zero = [torch.zeros_like(x) for x in a]
    assert math.isnan(cosine(a, zero, norm(a), 0.0, norm(a))) and norm(zero) == 0
    infinite = [torch.full_like(x, math.inf) for x in a]
    assert math.isnan(cosine(a, infinite, norm(a), norm(infinite), math.inf))
    assert distance(a, infinite) == math.inf

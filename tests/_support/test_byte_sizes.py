from __future__ import annotations

import pytest

from dkm_deploy import DkmError
from dkm_deploy._support.byte_sizes import parse_bytes, parse_share


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *[("10", 10), ("10B", 10), ("3.4MB", 3_400_000), ("1.1 kb", 1_100), ("2GB", 2 * 10**9)],
        *[("1KiB", 1024), ("3.5 MiB", 3_670_016), ("1GiB", 2**30), ("0.0005KB", 0)],
    ],
)
def test_sizes(written, expected):
    assert parse_bytes(written) == expected


@pytest.mark.parametrize("written", ["", "MB", "3,4MB", "-1", "3.4 Mb it", "3.4TB", "1e6", "nan"])
def test_what_is_no_size(written):
    with pytest.raises(DkmError, match=r"write it as 3\.4MB"):
        parse_bytes(written)


def test_a_size_beyond_every_float():
    with pytest.raises(DkmError, match="is too large"):
        parse_bytes("9" * 400)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("99.5%", 0.995), ("0.995", 0.995), ("1", 1), ("100 %", 1), ("0%", 0)],
)
def test_shares(written, expected):
    assert parse_share(written) == pytest.approx(expected)


@pytest.mark.parametrize("written", ["99.5", "101%", "-1%", "nan", "half", "5%%", ""])
def test_what_is_no_share(written):
    with pytest.raises(DkmError, match=r"write it as 99\.5% or 0\.995"):
        parse_share(written)

"""Numbers and names as text."""

from __future__ import annotations

import pytest

from ksmcluster.report import text


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("heap", "heap"),
        ("0123456789", "0123456789"),
        ("0123456789a", "0123...89a"),
        ("_bz2.cpython.so", "_bz2....so"),
    ],
)
def test_a_long_label_loses_its_middle(label: str, shown: str) -> None:
    assert text.shortened(label, 10) == shown

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.spec.limits import MOST_PAGES
from ksmcluster.config.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("4096B", 1),
        ("4KiB", 1),
        ("1MiB", 256),
        ("2 GiB", 524288),
        ("1TiB", 1 << 28),
        ("512 pages", 512),
        ("3pages", 3),
    ],
)
def test_sizes(text: str, pages: int) -> None:
    assert parse_size(text) == pages


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (512, 'a size is text with a unit: "512 pages" or "512MiB"'),
        (1.5, 'a size is text with a unit: "64MiB" or "512 pages"'),
        ("512", 'a size needs a unit: "512 pages" or "512MiB"'),
        ("4GB", 'did you mean "4GiB"?'),
        ("1 page", 'did you mean "1pages"?'),
        ("4 parsecs", 'unknown unit "parsecs" (the units are B, KiB, MiB, GiB, TiB, pages)'),
        ("5000B", '"5000B" is not a whole number of pages of 4096 bytes'),
        ("0KiB", "out of range"),
        ("5000TiB", "out of range: from 1 page to 4096TiB"),
        ("1.5GiB", "is not a size"),
        ("-1MiB", "is not a size"),
        ("", "is not a size"),
        ("٣MiB", "is not a size"),
    ],
)
def test_what_is_no_size(value: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_size(value)
    assert message in str(error.value)


@given(st.integers(1, MOST_PAGES))
def test_a_size_written_is_the_size_read(pages: int) -> None:
    assert parse_size(format_size(pages)) == pages

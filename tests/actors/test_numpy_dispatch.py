"""Which processors numpy's AVX-512 sort is kept from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.tuning.numpy_dispatch import choose_sort

VARIABLE = "NPY_DISABLE_CPU_FEATURES"


def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also afterwards, if it was not set before."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)


def cpuinfo(vendor: str, family: int, flags: str) -> str:
    one = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nflags\t\t: fpu {flags} nx\n\n"
    return one + one.replace("avx2", "avx2 avx512f")


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "kept_from"),
    [
        ("AuthenticAMD", 25, "avx2 avx512f avx512bw", True),
        ("AuthenticAMD", 25, "avx2", False),
        ("AuthenticAMD", 26, "avx2 avx512f avx512bw", False),
        ("GenuineIntel", 6, "avx2 avx512f", False),
    ],
    ids=["Zen 4", "Zen 3", "Zen 5", "Intel"],
)
def test_only_zen4_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, family: int, flags: str, kept_from: bool
) -> None:
    unset(monkeypatch)
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo(vendor, family, flags))
    choose_sort(file)
    assert os.environ.get(VARIABLE) == ("X86_V4" if kept_from else None)


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo("AuthenticAMD", 25, "avx2 avx512f"))
    choose_sort(file)
    assert os.environ[VARIABLE] == ""


def test_without_a_list_of_processors_nothing_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset(monkeypatch)
    choose_sort(tmp_path / "none")
    assert VARIABLE not in os.environ

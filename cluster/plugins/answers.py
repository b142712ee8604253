"""Checks of the arrays that the user's code returns."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.plugins.loading import PluginError


def check_array(what: str, found: object, dtype: type[np.generic], length: int | None = None) -> None:
    """Raise PluginError for what is no array of one dimension of this type and length."""
    wanted = f"{np.dtype(dtype)}[{'n' if length is None else length}]"
    if not isinstance(found, np.ndarray):
        raise PluginError(f"{what} returned {type(found).__name__}, not an array {wanted}")
    if found.ndim != 1 or found.dtype != dtype or length not in (None, len(found)):
        shape = ", ".join(map(str, found.shape))
        raise PluginError(f"{what} returned {found.dtype}[{shape}], not {wanted}")


def check_range(what: str, found: I64, end: int) -> None:
    """Raise PluginError if a number is not in [0, end)."""
    wrong = found[(found < 0) | (found >= end)]
    if len(wrong):
        raise PluginError(f"{what} has {wrong[0]}; the numbers are 0 to {end - 1}")

"""Shared parts of the tables of a scenario.

docs/reference/configuration.md is generated from the descriptions of the keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo

from cluster.spec.limits import (
    LEAST_PERIOD,
    MOST_COST,
    MOST_INTEGER,
    MOST_NAME,
    MOST_PAGES,
    MOST_PASSES,
    MOST_SECONDS,
    MOST_TITLE,
)
from cluster.spec.profile import Kernel, UnknownKernelError, kernel_of_release
from ksmcluster.config.problems import PLUGIN, quoted, refusal

#: Largest value of a knob that the kernel stores in an unsigned int.
UINT = 2**32 - 1

#: Safe text on a terminal: no control characters, line ends, or characters that change the text direction.
_SHOWN = r"[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"

Title = Annotated[str, Field(pattern=rf"^{_SHOWN}*$", max_length=MOST_TITLE)]
Seed = Annotated[int, Field(ge=0, le=MOST_INTEGER)]
Name = Annotated[str, Field(pattern=rf"^{_SHOWN}+$", max_length=MOST_NAME)]
#: A number of pages, processes or contents, below what any machine has.
Count = Annotated[int, Field(ge=1, le=MOST_PAGES)]
Passes = Annotated[int, Field(ge=1, le=MOST_PASSES)]
#: A cost, in ns or pages.
Costs = Annotated[float, Field(ge=0, le=MOST_COST)]
#: Simulated time.
Time = Annotated[float, Field(ge=0, le=MOST_SECONDS)]
TimeSpan = Annotated[float, Field(ge=LEAST_PERIOD, le=MOST_SECONDS)]
Share = Annotated[float, Field(gt=0, le=1)]
#: A share that may be 0.
Part = Annotated[float, Field(ge=0, le=1)]
#: A knob that is on (1) or off (0), as in sysfs.
Switch = Annotated[int, Field(ge=0, le=1)]
Knob = Annotated[int, Field(ge=0, le=UINT)]
#: Keyword arguments of a class.
Settings = dict[str, bool | int | float | str]
Numbers = Annotated[tuple[int, ...], Field(strict=False)]

#: A key that needs some choices of another key: these choices, and its default (`...`: it must be given).
Switched = dict[str, tuple[tuple[str, ...], Any]]


def key(default: Any, meaning: str, unit: str = "") -> Any:
    """Return a key of the scenario; with the default `...` it must be given."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit})


def base_directory(info: ValidationInfo) -> Path:
    """Return the directory to which relative paths refer."""
    return Path((info.context or {}).get("base", "."))


def kernel_in_quotes(kernel: object) -> object:
    """Return the name of a kernel unchanged. Raises ValueError if it is a number: 6.10 would become 6.1."""
    if isinstance(kernel, float):
        raise ValueError(
            f'is a number, but TOML reads 6.10 as 6.1; write it in quotes: "{kernel}" or "{kernel}0"'
        )
    return kernel


def as_known_kernel(kernel: object, kernels: tuple[Kernel, ...]) -> object:
    """Return the known kernel as which a release is taken; what is no release as it is, refused later."""
    try:
        in_quotes = kernel_in_quotes(kernel)
        return kernel_of_release(in_quotes, kernels) if isinstance(in_quotes, str) else in_quotes
    except UnknownKernelError:
        return kernel


class ConfigTable(BaseModel):
    """A table of the scenario. TOML has types, so nothing is converted (a true is not a 1)."""

    model_config = ConfigDict(extra="forbid", strict=True)
    _notes: tuple[str, ...] = PrivateAttr(())

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of a whole scenario: keys ignored because of the command line's choices, a line each."""
        return self._notes

    def with_notes(self, notes: Iterable[str]) -> Self:
        """Add notes; return the same scenario."""
        self._notes = tuple(notes)
        return self

    def settle(self, switch: str, keys: Switched) -> None:
        """Fill in the keys that the value of `switch` allows, and refuse the others."""
        choice = getattr(self, switch)
        among = PLUGIN if choice and ":" in choice else choice
        problems: list[tuple[str, str] | tuple[str, str, str]] = []
        for name, (choices, default) in keys.items():
            given = getattr(self, name) is not None
            if among not in choices and given:
                text = f'has no meaning with {switch} = "{choice}", only with {quoted(choices)}'
                problems.append((name, text, switch))
            elif among in choices and not given and default is ...:
                problems.append((name, f'is missing; {switch} = "{choice}" needs it'))
            elif among in choices and not given:
                setattr(self, name, default)
        if problems:
            raise refusal(problems)

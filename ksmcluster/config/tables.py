"""What the tables of a scenario have in common.

docs/reference/configuration.md is made from the descriptions of the keys.
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
    MOST_PASSES,
    MOST_SECONDS,
    MOST_TITLE,
)
from cluster.spec.profile import Kernel, UnknownKernelError, kernel_of_release
from ksmcluster.config.problems import PLUGIN, quoted, refusal
from ksmcluster.config.sizes import MOST_PAGES

#: Largest value of a knob that the kernel keeps in an unsigned int.
UINT = 2**32 - 1

#: What a terminal shows as it is: neither controls, nor what turns the direction of a text or ends a line.
_SHOWN = r"[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"

Title = Annotated[str, Field(pattern=rf"^{_SHOWN}*$", max_length=MOST_TITLE)]
Seed = Annotated[int, Field(ge=0, le=MOST_INTEGER)]
Name = Annotated[str, Field(pattern=rf"^{_SHOWN}+$", max_length=MOST_NAME)]
#: Pages, processes or contents, of which a machine has fewer.
Count = Annotated[int, Field(ge=1, le=MOST_PAGES)]
Passes = Annotated[int, Field(ge=1, le=MOST_PASSES)]
#: What a thing costs, in ns or pages.
Costs = Annotated[float, Field(ge=0, le=MOST_COST)]
#: Simulated time.
Time = Annotated[float, Field(ge=0, le=MOST_SECONDS)]
TimeSpan = Annotated[float, Field(ge=LEAST_PERIOD, le=MOST_SECONDS)]
Share = Annotated[float, Field(gt=0, le=1)]
#: A share that may be nothing.
Part = Annotated[float, Field(ge=0, le=1)]
#: A knob that is on or off, as sysfs has it.
Switch = Annotated[int, Field(ge=0, le=1)]
Knob = Annotated[int, Field(ge=0, le=UINT)]
#: Keyword arguments of a class.
Settings = dict[str, bool | int | float | str]
Numbers = Annotated[tuple[int, ...], Field(strict=False)]

#: A key that only some choices of another key have: those choices, and its default (`...`: it must be given).
Switched = dict[str, tuple[tuple[str, ...], Any]]


def key(default: Any, meaning: str, unit: str = "") -> Any:
    """A key of the scenario; `...` as the default: it must be given."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit})


def base_directory(info: ValidationInfo) -> Path:
    """The directory at which relative paths start."""
    return Path((info.context or {}).get("base", "."))


def kernel_in_quotes(kernel: object) -> object:
    """Return the name of a kernel as it is. Raises ValueError if it is a number: 6.10 would read as 6.1."""
    if isinstance(kernel, float):
        raise ValueError(f'is a number, and TOML reads 6.10 as 6.1; write it in quotes, as in "{kernel}"')
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
        """Of a whole scenario: what was left out to fit the command line's choices, a line each."""
        return self._notes

    def with_notes(self, notes: Iterable[str]) -> Self:
        """Note what was left out; return the same scenario."""
        self._notes = tuple(notes)
        return self

    def settle(self, switch: str, keys: Switched) -> None:
        """Fill in the keys that the choice made by `switch` has, and refuse those that it has not."""
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

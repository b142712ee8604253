"""Messages about mistakes in a scenario, one line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from cluster.spec.limits import MOST_DEPTH
from ksmcluster.report.text import shortened

Path = tuple[str | int, ...]
#: Longer words get no suggestions: the time to compare grows with the square of the length.
_LONGEST_WORD = 100
#: The most mistakes of a scenario that are reported.
_MOST_PROBLEMS = 1000
#: The most characters of a value in a message.
_SHOWN = 200

#: How a scenario names a class of a user's package.
PLUGIN = "PACKAGE.MODULE:CLASS"


class ConfigProblem(NamedTuple):
    """A mistake, and the key that it is about."""

    path: Path
    text: str
    #: The key whose value makes this one meaningless; empty for all other mistakes.
    switch: str = ""


def refusal(problems: Iterable[tuple[str, str] | tuple[str, str, str]]) -> PydanticCustomError:
    """Return an error for a validator of a whole table, from pairs of a key and what is wrong with it.

    An optional third item is the `ConfigProblem.switch`.
    """
    return PydanticCustomError("problems", "inconsistent", {"problems": list(problems)})


def dotted(path: Path) -> str:
    """`process[0].region[2].size`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def parse_path(text: str) -> Path:
    """Parse a dotted path, the reverse of `dotted`; an empty text is the root. Raises ValueError."""
    if not text:
        return ()
    if not re.fullmatch(r"[\w-]+(\[\d{1,9}\])*(\.[\w-]+(\[\d{1,9}\])*)*", text, re.ASCII):
        raise ValueError("not a path of keys such as ksm.run or process[0].count")
    steps = re.findall(r"\[(\d+)\]|([\w-]+)", text, re.ASCII)
    if len(steps) > MOST_DEPTH:
        raise ValueError(f"a path of more than {MOST_DEPTH} keys")
    return tuple(int(index) if index else name for index, name in steps)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean "size"?`, or an empty text if no word is similar."""
    near = difflib.get_close_matches(word, list(words), n=1) if len(word) <= _LONGEST_WORD else []
    return f'; did you mean "{near[0]}"?' if near else ""


def table_of(annotation: object) -> type[BaseModel] | None:
    """Return the model in an annotation such as `tuple[Region, ...]` or `Policy | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for arg in get_args(annotation) if (table := table_of(arg))), None)


def several_tables(annotation: object) -> bool:
    """Return whether an annotation with a model stands for a list of tables."""
    return get_origin(annotation) is tuple or any(map(several_tables, get_args(annotation)))


def tables(root: type[BaseModel], path: str = "") -> dict[str, type[BaseModel]]:
    """Return every table of a scenario by its dotted name; names of lists end with []."""
    found = {path: root}
    for name, field in root.model_fields.items():
        if table := table_of(field.annotation):
            several = "[]" if several_tables(field.annotation) else ""
            found |= tables(table, f"{path}.{name}{several}".removeprefix("."))
    return found


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[ConfigProblem]:
    """Return pydantic's errors as our messages."""
    found = error.errors(include_url=False)[:_MOST_PROBLEMS]
    return [problem for details in found for problem in _problems(details, root)]


def _problems(details: ErrorDetails, root: type[BaseModel]) -> list[ConfigProblem]:
    path, kind = details["loc"], details["type"]
    if kind == "problems":
        problems = _context(details)["problems"]
        return [ConfigProblem((*path, *parse_path(key)), *texts) for key, *texts in problems]
    if kind == "extra_forbidden":
        return [ConfigProblem(path, _unknown_key(path, root))]
    return [ConfigProblem(path, text_of(details))]


def _unknown_key(path: Path, root: type[BaseModel]) -> str:
    table: type[BaseModel] = root
    for step in path[:-1]:
        if isinstance(step, str):
            table = table_of(table.model_fields[step].annotation) or table
    key = str(path[-1])
    homes = [f"[{name}]" for name, other in tables(root).items() if name and key in other.model_fields]
    hint = did_you_mean(key, table.model_fields)
    if not hint and homes:
        hint = f"; it belongs to {' or '.join(homes)}"
    return f"unknown key{hint or '; the keys here are ' + ', '.join(table.model_fields)}"


#: The rest of "must be ..." for errors that need only their limit.
MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "finite_number": "finite",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text without control characters, and not empty",
    "string_too_long": "at most {max_length} characters long",
}


def text_of(details: ErrorDetails) -> str:
    """Return one of pydantic's errors as our message."""
    kind, value, context = details["type"], details["input"], _context(details)
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return _not_one_of(value, re.findall(r"'([^']*)'", context["expected"]))
    if kind in ("model_type", "model_attributes_type"):
        return f"must be a table, not {shown(value)}"
    if kind == "tuple_type" and isinstance(value, Mapping):
        return "must be a list of tables: write its name in double brackets"
    if kind in MUST_BE:
        return f"must be {MUST_BE[kind].format(**context)}, not {shown(value)}"
    return details["msg"]


def _context(details: ErrorDetails) -> dict[str, Any]:
    return details.get("ctx", {})


def not_a_class(name: str) -> str:
    """Return what is wrong with the name of a class; empty if it has the form PACKAGE.MODULE:CLASS."""
    module, _, cls = name.partition(":")
    right = cls.isidentifier() and all(step.isidentifier() for step in module.split("."))
    return "" if right else f"{shown(name)} does not have the form {PLUGIN}"


def choice_or_plugin(choices: Sequence[str]) -> Callable[[str], str]:
    """Return a validator of a key whose value is one of these words or the name of a class."""

    def check(value: str) -> str:
        if ":" in value:
            wrong = not_a_class(value)
        elif value not in choices:
            wrong = _not_one_of(value, choices) + ("" if did_you_mean(value, choices) else f", or {PLUGIN}")
        else:
            wrong = ""
        if wrong:
            raise ValueError(wrong)
        return value

    return check


def _not_one_of(value: object, words: Sequence[str]) -> str:
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    return f"{shown(value)} is not one of {quoted(words)}{hint}"


def quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def shown(value: object) -> str:
    """Return a value as short TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return shortened(f'"{value}"' if value.isprintable() else repr(value), _SHOWN)
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else str(value)

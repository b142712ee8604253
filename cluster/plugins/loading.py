"""Find, make and call classes of users' packages, which scenarios name as `PACKAGE.MODULE:CLASS`.

Whatever goes wrong in the user's code is a PluginError of one line. Its cause and note have the traceback.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from cluster.spec.errors import SimulationError
from cluster.spec.plugin import PluginSpec

#: Where the files of this package and of numpy are.
_OURS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(np.__file__).parent))

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class PluginError(SimulationError):
    """A user's class cannot be used; the message is one line for the user."""


def make(what: str, plugin: PluginSpec, base: type[T_co], *arguments: object) -> T_co:
    """Return a new object of the class that a scenario names, a subclass of `base`.

    `what` says in errors what the class is for: "workload model". The class gets the arguments, and the
    settings as keyword arguments. Raises PluginError.
    """
    who = f"{what} {plugin.name!r}"
    cls = find(who, plugin.name)
    if not isinstance(cls, type):
        raise PluginError(f"{who} is not a class")
    if not issubclass(cls, base):
        raise PluginError(f"{who} is no {base.__name__}; derive it from {base.__module__}.{base.__name__}")
    check_settings(who, cls, len(arguments), dict(plugin.settings))
    made: T_co = call(who, cls, *arguments, **dict(plugin.settings))
    if callable(made):
        raise PluginError(f"{who} has a method __call__; checkpoints would take its objects for functions")
    return made


def find(who: str, name: str) -> object:
    """Return what `PACKAGE.MODULE:CLASS` names; modules may be in the working directory, as on Ray.

    `who` begins the message of the PluginError that is raised if there is no such thing.
    """
    module, _, attribute = name.partition(":")
    directory = str(Path.cwd())
    if not {"", directory} & set(sys.path):
        sys.path.append(directory)
    try:
        found = importlib.import_module(module)
    except MemoryError:
        raise
    except ModuleNotFoundError as error:
        hint = f"install the package of {error.name}, or start in its directory; Ray's processes need it, too"
        raise PluginError(f"{who}: {error}; {hint}") from error
    except Exception as error:
        raise failure(who, error) from error
    if not hasattr(found, attribute):
        near = difflib.get_close_matches(attribute, vars(found), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PluginError(f"{who}: module {module!r} has no attribute {attribute!r}{hint}")
    return getattr(found, attribute)


def check_settings(
    who: str, factory: Callable[..., object], arguments: int, settings: Mapping[str, object]
) -> None:
    """Raise PluginError for an unknown setting; the message suggests the closest name.

    `arguments` is the number of arguments that come before the settings.
    """
    taken = list(inspect.signature(factory).parameters.values())[arguments:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return
    names = [parameter.name for parameter in taken]
    for setting in settings:
        if setting not in names:
            near = difflib.get_close_matches(setting, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'none'}"
            raise PluginError(f"{who} has no setting {setting!r}; {hint}")


def call(who: str, function: Callable[..., T], *arguments: object, **settings: object) -> T:
    """Return what the user's code returns. Raises PluginError if it raises anything."""
    try:
        return function(*arguments, **settings)
    except MemoryError:
        raise
    except Exception as error:
        raise failure(who, error) from error


def failure(who: str, error: Exception) -> PluginError:
    """Return the error that says what went wrong in the user's code, and where."""
    found = PluginError(f"{who}: {type(error).__name__}: {' '.join(str(error).split())}{place(error)}")
    # Ray does not keep the causes of errors, but their notes.
    found.add_note("".join(traceback.format_exception(error)))
    return found


def place(error: Exception) -> str:
    """Return the file and line of the user's code where an error came up, for the end of a message.

    Nothing if it came up in what this package called.
    """
    _caller, *called = traceback.extract_tb(error.__traceback__)
    called = [frame for frame in called if "importlib" not in frame.filename]
    # A base class of ours may have called the user's code; without any, it is where the user's answer failed.
    theirs = [frame for frame in called if not frame.filename.startswith(_OURS)] or called
    of_user = [frame for frame in theirs if frame.filename == theirs[0].filename]
    return f" ({Path(of_user[-1].filename).name}, line {of_user[-1].lineno})" if of_user else ""

"""Checks, before the import, that `cluster` and `actors` are the packages of ksmcluster."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]
NAMES = ("cluster", "actors")


def check_own_packages() -> None:
    """Raise ImportError if Python finds another package `cluster` or `actors` first.

    The command `ksmcluster` instead prints the message and exits with 2.
    """
    problem = next((text for name in NAMES if (text := _problem(name))), "")
    if not problem:
        return
    # "-m": the packages of the main module are being imported.
    if sys.argv and Path(sys.argv[0]).name in ("ksmcluster", "-m"):
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(problem)


def _problem(name: str) -> str:
    own = _HOME / name / "__init__.py"
    found = _file(name)
    if found and found.resolve() != own:
        shown = found.parent if found.name == "__init__.py" else found
        return (
            f'{shown} hides ksmcluster\'s own package "{name}": rename it, uninstall it, or remove its '
            "folder from Python's path (the working directory, PYTHONPATH)"
        )
    # Another distribution that has such a package may have overwritten ours.
    if found and "ksmcluster" not in found.read_text(encoding="utf-8", errors="replace"):
        return f"{own.parent} belongs to another distribution: uninstall that, then install ksmcluster again"
    return ""


def _file(name: str) -> Path | None:
    """Return the file that `import name` runs or has run; None if there is none."""
    module = sys.modules.get(name)
    spec = None if module else find_spec(name)
    file = getattr(module, "__file__", None) or (spec and spec.origin)
    return Path(file) if file else None

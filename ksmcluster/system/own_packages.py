"""Check that `cluster` and `actors` are the packages that come with ksmcluster, before they are imported."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]
NAMES = ("cluster", "actors")


def check_own_packages() -> None:
    """Raise ImportError, in one line, if Python finds another `cluster` or `actors` first.

    In the command `ksmcluster`, print the line as an error and exit with 2 instead.
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
            f'{shown} is in the way of ksmcluster\'s own package "{name}": rename it, uninstall it, or take '
            "its folder off Python's path (the working directory, PYTHONPATH)"
        )
    # Another distribution that has such a package may have overwritten ours.
    if found and "ksmcluster" not in found.read_text(encoding="utf-8", errors="replace"):
        return f"{own.parent} belongs to another distribution: uninstall that, then install ksmcluster again"
    return ""


def _file(name: str) -> Path | None:
    """Return the file that `import name` has run or would run; None if there is none."""
    module = sys.modules.get(name)
    spec = None if module else find_spec(name)
    file = getattr(module, "__file__", None) or (spec and spec.origin)
    return Path(file) if file else None

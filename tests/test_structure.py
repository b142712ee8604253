"""How the packages are built: no circle of imports, folders of a readable size, each class name once."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("cluster", "actors", "ksmcluster")
MAX_ENTRIES = 15


def modules() -> dict[str, Path]:
    """All modules by name; a package is its `__init__.py`."""
    files = (file for name in PACKAGES for file in (REPOSITORY / name).rglob("*.py"))
    return {_name(file): file for file in files}


def _name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: str, file: Path, known: set[str]) -> Iterator[str]:
    """Modules of ours that a module names in imports: at its top, in functions and for types only.

    The packages on the way to a module are left out, as every module of a package imports them.
    """
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            assert node.module
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            yield from inner
            if node.module in known and len(inner) < len(node.names):
                yield node.module


def test_no_module_imports_itself_by_way_of_others() -> None:
    files = modules()
    graph = {module: set(imports(module, file, set(files))) for module, file in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError("a circle of imports: " + " <- ".join(error.args[1])) from None


def test_a_package_has_at_most_fifteen_entries() -> None:
    folders = {file.parent for file in modules().values()}
    sizes = {
        str(folder.relative_to(REPOSITORY)): sum(entry.name != "__pycache__" for entry in folder.iterdir())
        for folder in folders
    }
    assert {folder: size for folder, size in sizes.items() if size > MAX_ENTRIES} == {}


def test_each_class_name_is_there_once() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}

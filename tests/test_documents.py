"""What the documents name exists: links, files, modules, and the functions that they place in a file.

So does what docstrings and comments of `cluster` and `actors` name by its full dotted name.

CHANGELOG.md may name modules of earlier versions; only its links are checked.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.paths import DOCS

ROOT = DOCS.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted(DOCS.glob("**/*.md")),
    *sorted((ROOT / "tests").glob("**/README.md")),
]
FOLDERS = ("cluster", "actors", "ksmcluster", "configs", "tests", "benchmarks", "docs")
#: Programs that the reader of a page is to write.
OF_READERS = ("job.py", "logs.py", "placement.py")
FILES = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
MODULES = [file for folder in ("cluster", "actors") for file in (ROOT / folder).rglob("*.py")]

LINK = re.compile(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)")
PYTHON_FILE = re.compile(r"(?<![\w./-])([\w/]+\.py)\b")
PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*[\w/])")
DOTTED = re.compile(r"(?<![\w./-])((?:cluster|actors|ksmcluster)(?:\.\w+)+)")
#: `cluster.mm.frames.Frames`, in docstrings and comments
QUOTED = re.compile(r"`((?:cluster|actors)(?:\.\w+)+)`")
#: `file.py`: `function`, `Class.method`
PLACE = re.compile(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, | and )?)+)")


def files_named(name: str) -> list[Path]:
    """Return the files of the repository whose path ends with this one."""
    return [file for file in FILES if f"/{file.relative_to(ROOT)}".endswith(f"/{name}")]


def defined_in(file: Path) -> set[str]:
    """Return the names that a module and its classes define; of a class both `Class.name` and `name`."""
    names: set[str] = set()
    scopes: list[tuple[str, list[ast.stmt]]] = [("", ast.parse(file.read_text()).body)]
    for prefix, body in scopes:
        for statement in body:
            match statement:
                case ast.FunctionDef(name=name):
                    names |= {name, prefix + name}
                case ast.ClassDef(name=name):
                    names.add(name)
                    scopes.append((f"{prefix}{name}.", statement.body))
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    names |= {name, prefix + name}
    return names


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """Return what a pattern finds in the documents, with the document's path; each once."""
    found = [
        (str(document.relative_to(ROOT)), name)
        for document in DOCUMENTS
        for name in pattern.findall(document.read_text())
    ]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda file: file.parent.name + "/" + file.name
)
def test_links(document: Path) -> None:
    for path, anchor in LINK.findall(document.read_text()):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), path
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path}#{anchor}"


def test_files_and_folders() -> None:
    missing = [place for place in names(PATH) if not (ROOT / place[1]).exists()]
    programs = [place for place in names(PYTHON_FILE) if place[1] not in OF_READERS]
    assert missing + [place for place in programs if not files_named(place[1])] == []


@pytest.mark.parametrize("name", sorted({name for _, name in names(DOTTED)}))
def test_modules_and_what_is_in_them(name: str) -> None:
    resolve_name(name)


@pytest.mark.parametrize(
    "name", sorted({name for file in MODULES for name in QUOTED.findall(file.read_text())})
)
def test_what_docstrings_name(name: str) -> None:
    resolve_name(name)


def test_functions_and_classes_are_in_the_files_named() -> None:
    missing = []
    for document, (file, listed) in names(PLACE):
        defined = set().union(*map(defined_in, files_named(file)))
        missing += [(document, file, name) for name in re.findall(r"`(.+?)`", listed) if name not in defined]
    assert missing == []

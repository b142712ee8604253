"""Picture files: their formats, and the mark by which ours are recognized."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def require_matplotlib(asked: str) -> None:
    """Raise UserError if matplotlib is not installed; its message begins with `asked`."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"{asked}: needs matplotlib: pip install 'ksmcluster[plot]'") from error


def check_picture(path: Path, option: str) -> None:
    """Raise UserError if no picture can be written there; call it before the work."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"{option} {path}: give a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    require_matplotlib(option)


def write_picture(figure: Figure, path: Path, title: str) -> None:
    """Write the picture with its title in the metadata. The same figure gives the same bytes.

    Raises OSError if it cannot be written.
    """
    dateless = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(path, metadata={"Title": title, **dateless.get(path.suffix.lower(), {})})


def is_picture(path: Path, title: str) -> bool:
    """Return whether `write_picture` wrote the file with this title."""
    return title.encode() in path.read_bytes()

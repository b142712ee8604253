"""Pictures as part of an HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from ksmcluster.report.plots.kinds import KINDS, pictures
from ksmcluster.report.plots.picture import Picture
from ksmcluster.report.run_data import RunData

#: Matches ids of elements and references to them.
NAMED = re.compile(r'((?<![\w-])id="|href="#|url\(#)')


def figures(runs: Sequence[RunData]) -> list[list[Markup]]:
    """Return a row of pictures per kind, with the runs that have it; a single run has all in one row."""
    rows = []
    # Pictures that show all runs together come first.
    for name, kind in sorted(KINDS.items(), key=lambda item: len(runs) > 1 and not item[1].together):
        having = [run for run in runs if not kind.why_not(run)]
        # For a single run, the picture of memory in use also shows the saved memory.
        if having and not (name == "saved" and len(runs) == 1):
            rows.append(
                [
                    inline(one, f"{name}-{n}-")
                    for n, one in enumerate(pictures(name, having, named=len(runs) > 1))
                ]
            )
    return rows if len(runs) > 1 else [[figure for row in rows for figure in row]]


def inline(picture: Picture, prefix: str) -> Markup:
    """Return a picture as an element `svg`; the prefix makes its ids unique in the page."""
    svg = picture.svg(letters="none")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = NAMED.sub(rf"\g<1>{prefix}", svg)
    title = Markup.escape(picture.axes[0].get_title(loc="left").replace("\n", ": "))
    # The page sets the size; the aspect ratio stays.
    opening = re.sub(r' (?:width|height)="[^"]*"', "", svg[: svg.index(">") + 1])[:-1]
    return Markup(f'{opening} role="img" aria-label="{title}">{svg[svg.index(">") + 1 :]}')

"""Pictures as part of an HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from ksmcluster.report.plots.kinds import KINDS, pictures
from ksmcluster.report.plots.picture import Picture
from ksmcluster.report.run_data import RunData

#: What names an element, or refers to one by its name.
NAMED = re.compile(r'((?<![\w-])id="|href="#|url\(#)')


def figures(runs: Sequence[RunData]) -> list[list[Markup]]:
    """Return rows of pictures, of each kind by the runs that have it; those of a single run are one row."""
    rows = []
    # What shows all runs together comes first.
    for name, kind in sorted(KINDS.items(), key=lambda item: len(runs) > 1 and not item[1].together):
        having = [run for run in runs if not kind.why_not(run)]
        # Of a single run, memory saved is part of memory in use.
        if having and not (name == "saved" and len(runs) == 1):
            rows.append(
                [
                    inline(one, f"{name}-{n}-")
                    for n, one in enumerate(pictures(name, having, named=len(runs) > 1))
                ]
            )
    return rows if len(runs) > 1 else [[figure for row in rows for figure in row]]


def inline(picture: Picture, prefix: str) -> Markup:
    """Return a picture as an element `svg`; with the prefix, its names are not there twice in a page."""
    svg = picture.svg(letters="none")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = NAMED.sub(rf"\g<1>{prefix}", svg)
    title = Markup.escape(picture.axes[0].get_title(loc="left").replace("\n", ": "))
    # The page decides about the size; the shape stays.
    opening = re.sub(r' (?:width|height)="[^"]*"', "", svg[: svg.index(">") + 1])[:-1]
    return Markup(f'{opening} role="img" aria-label="{title}">{svg[svg.index(">") + 1 :]}')

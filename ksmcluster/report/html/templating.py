"""HTML from the templates next to this file."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from ksmcluster.report.text import one_line


def shown(value: object) -> object:
    """Return text without control characters and characters that change the text direction."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "\n".join(map(one_line, value.split("\n")))


def rendered(template: str, **what: object) -> str:
    """Render a template; everything that is not markup is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ksmcluster.report.html"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template(template).render(what)


def _breakable(name: str) -> Markup:
    """Return a name that a browser may break after dots and underscores."""
    return Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", str(escape(name))))

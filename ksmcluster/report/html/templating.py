"""HTML from the templates beside this file."""

from __future__ import annotations

import re

from markupsafe import Markup, escape


def rendered(template: str, **what: object) -> str:
    """Return a template filled in; all that is not markup is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ksmcluster.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template(template).render(what)


def _breakable(name: str) -> Markup:
    """Return a name that a browser may break behind its dots and underscores."""
    return Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", str(escape(name))))

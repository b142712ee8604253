"""HTML from the templates beside this file."""

from __future__ import annotations


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
    return environment.get_template(template).render(what)

"""The report of a compression as one HTML file: it loads nothing and runs no scripts.

Jinja fills the templates beside this file; it comes with the extra ``graphopt[report]`` and is imported when a page is
wanted. Charts are SVG that stretches while its text keeps its size, so that a phone shows them as well as paper does,
in the colours that the reader prefers. Names are escaped; a content policy holds should one ever not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from graphopt.errors import EnvironmentProblem
from graphopt.reporting.content import content

if TYPE_CHECKING:
    from jinja2 import Environment

    from graphopt.reporting.schema import Report

__all__ = ["page"]


def page(report: Mapping[str, Any]) -> str:
    """Shows a compression as HTML; the same report gives the same text.

    Args:
        report: What :class:`graphopt.reporting.schema.Report` describes.

    Raises:
        EnvironmentProblem: Jinja cannot be imported.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(content=content(cast("Report", report)))


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise EnvironmentProblem(
            f"a page needs Jinja, which cannot be imported: {error}",
            hint="Install it with: pip install 'graphopt[report]'.",
        ) from error
    found = Environment(
        loader=PackageLoader("graphopt.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["kind"] = lambda part: type(part).__name__
    return found

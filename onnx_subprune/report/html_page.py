"""The report as a page: one HTML file that needs nothing else, no script and no network.

It is made of the document that `--json` prints and of nothing else, so the two cannot differ. Times are marked
as such; all the rest is the same in every run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from onnx_subprune.errors import OptionError
from onnx_subprune.formatting import change, count, duration, milliseconds, percent, printable
from onnx_subprune.report.document import to_json
from onnx_subprune.report.page_views import analysis_view, pruning_view

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["to_html"]

_View = Callable[[Mapping[str, Any]], dict[str, Any]]

_PAGES: Mapping[str, tuple[str, _View]] = {
    "onnx_subprune.report/1": ("report.html.j2", pruning_view),
    "onnx_subprune.inspect/1": ("inspect.html.j2", analysis_view),
}
"""The template and its view for each kind of document that has a page."""


def to_html(document: Mapping[str, Any]) -> str:
    """Return the page of a document of a pruning or of an analysis, also of one that was read from its JSON.

    Raises:
        OptionError: it is another document.

    """
    document = json.loads(to_json(document))
    if document["format"] not in _PAGES:
        raise OptionError(f"expected a document of {' or '.join(_PAGES)}, found {document['format']}; it has no page")
    template, view = _PAGES[document["format"]]
    style = (resources.files("onnx_subprune.report") / "templates" / "report.css").read_text(encoding="utf-8")
    return str(_templates().get_template(template).render(document=document, style=style, **view(document)))


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (only who wants a page needs it)

    environment = Environment(
        loader=PackageLoader("onnx_subprune.report", "templates"),
        autoescape=True,
        finalize=_readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "percent": percent, "ms": milliseconds, "duration": duration}
    environment.filters |= {"breakable": _breakable, "plural": _plural}
    environment.globals["change"] = change
    return environment


def _readable(value: Any) -> Any:
    """Return what the page shows of a value: of a text what can be read, which is not yet HTML."""
    return printable(value) if type(value) is str else value


def _breakable(name: str) -> Any:
    """Return a name that may be broken where its parts meet, so that a narrow column does not break it anywhere."""
    from markupsafe import Markup, escape  # noqa: PLC0415  (comes with jinja2)

    parts = re.split(r"(?<=[/._])(?=.)|(?<=[a-z])(?=[A-Z])", printable(name))
    return Markup("<wbr>").join(map(escape, parts))


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""Decides. A run as one HTML page that stands alone: no scripts, no fonts and no pictures from elsewhere."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from engine.core.breaks import Severity
from engine.core.runs import SCHEMA, Age, Run, Verdict, age_of
from engine.core.statements import Part
from engine.reports.summary import figure, lasting, money, signed, summarise, when
from engine.reports.texts import EN, Texts

GLYPHS = {Verdict.CLEAN: "✓", Verdict.BREAKS: "≠", Verdict.UNKNOWN: "?"}
"""A verdict is never told by colour alone."""

# Everything is escaped: names and reasons come from venues and may hold anything.
_environment = Environment(
    loader=PackageLoader("engine.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"figure": figure, "signed": signed, "when": when, "lasting": lasting}


def page(run: Run, texts: Texts = EN) -> str:
    """The report. The same run gives the same text."""
    return _environment.get_template("reconciliation.html").render(
        s=summarise(run),
        run=run,
        t=texts,
        glyphs=GLYPHS,
        Verdict=Verdict,
        Severity=Severity,
        Part=Part,
        Age=Age,
        age_of=age_of,
        money=money,
        schema=SCHEMA,
        css=Markup(_environment.get_template("report.css").render()),  # noqa: S704  our own file, without values
    )

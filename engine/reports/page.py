"""Decides. A run, or a plan, as one HTML page that stands alone: no scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from engine.core.breaks import Severity
from engine.core.fairness import LegFairness
from engine.core.limits import plain
from engine.core.plans import Plan
from engine.core.runs import SCHEMA, Age, Run, Verdict, age_of
from engine.core.statements import Part
from engine.reports.plans import leg_sentence
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


def plan_page(plan: Plan, measured: Sequence[LegFairness]) -> str:
    """What became of a plan and how fair it was, for each account. The same plan gives the same text."""
    return _environment.get_template("plan.html").render(
        plan=plan,
        measured=measured,
        sentences=[leg_sentence(leg) for leg in plan.legs],
        css=Markup(_environment.get_template("report.css").render()),  # noqa: S704  our own file, without values
    )


def _percent(number: Decimal | None) -> str:
    return "–" if number is None else f"{number:+.4f} %"


def _after(milliseconds: int | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds} ms"


def _number(number: Decimal | None) -> str:
    return "–" if number is None else plain(round(number, 8))


_environment.filters |= {"percent": _percent, "after": _after, "number": _number}


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

"""Content -> one HTML page that stands by itself: no script, no request, the same bytes for the same content."""

from __future__ import annotations

import math
import re
from importlib.resources import files

from mgdm_cli import __version__
from mgdm_cli.report import plots
from mgdm_cli.report.content import AugmentReport, EvaluateReport, Figure
from mgdm_cli.report.pictures import grid, single

WORDS = {"good": "Good", "plain": "Note", "caution": "Caution", "bad": "Problem"}
SAID = {"helps": "good", "no evidence": "plain", "hurts": "bad"}
BETTER = {"lower": "lower is better", "higher": "higher is better", "neither": "for information"}


def augment_page(report: AugmentReport) -> str:
    """The page of a finished `augment` as HTML text."""
    spread = None
    if report.spread is not None and report.spread.before and report.spread.after:
        spread = plots.spread(report.spread.before, report.spread.after, report.spread.name, report.spread.top)
    return _render(report, kind="augment", spread=spread)


def evaluate_page(report: EvaluateReport) -> str:
    """The page of a finished `evaluate` as HTML text."""
    return _render(report, kind="evaluate", spread=None)


def _render(report: AugmentReport | EvaluateReport, *, kind: str, spread: str | None) -> str:
    """The template filled with `report`; drawings are made here, layout is the template's."""
    from jinja2 import Environment, StrictUndefined

    folder = files("mgdm_cli.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, whole=whole, share=share, measure=measure, points=points)
    environment.globals.update(grid=grid, single=single, strip=_strip, WORDS=WORDS, BETTER=BETTER, SAID=SAID)
    template = environment.from_string(folder.joinpath("page.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        kind=kind,
        spread=spread,
        copies=_copies(report),
        forest=_forest(report),
        largest=max((row.real + row.synthetic for row in report.classes), default=1) or 1,
        style=folder.joinpath("page.css").read_text(encoding="utf-8"),
        version=__version__,
    )
    return page.replace("<!--contents-->", _contents(page))


def _contents(page: str) -> str:
    """Links to the sections that the page has, beyond the first."""
    found = re.findall(r'<h2 id="(\w+)">(.+?)</h2>', page)[1:]
    links = "".join(f'<li><a href="#{name}">{re.split(r"(?<=[?]) |:", title)[0]}</a></li>' for name, title in found)
    return f'<nav aria-label="Sections"><ul class="contents">{links}</ul></nav>' if found else ""


def _copies(report: AugmentReport | EvaluateReport) -> str | None:
    copies = report.copies
    if copies is None or not copies.synthetic or not copies.real:
        return None
    return plots.copy_scores(copies.synthetic, copies.real, copies.threshold)


def _forest(report: AugmentReport | EvaluateReport) -> str | None:
    """The gains over real images alone, or over the first thing compared with."""
    utility = report.utility if isinstance(report, EvaluateReport) else None
    if utility is None or not utility.gains:
        return None
    against = utility.gains[0].against
    rows = [(g.arm, g.nets, (g.value, g.lo, g.hi)) for g in utility.gains if g.against == against]
    return plots.forest(rows, f"{against} images" if against == "real" else against)


def points(value: float | None) -> str:
    """A difference of shares in points, one decimal, with its sign."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def _strip(figure: Figure) -> str:
    """The small drawing of a figure; percentages share the axis 0..1, others begin at 0 or below."""
    if figure.value is None:
        return ""
    if figure.percent:
        return plots.strip(figure.value, figure.lo, figure.hi, figure.baseline, 1.0, 0.0)
    seen = [v for v in (figure.value, figure.lo, figure.hi, figure.baseline) if v is not None and math.isfinite(v)]
    least = min(0.0, *seen)
    return plots.strip(figure.value, figure.lo, figure.hi, figure.baseline, max(*seen, 0.0) or 1.0, least)


def number(value: float | None) -> str:
    """Three significant digits, a true minus sign; a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa} × 10^{int(exponent)}".replace("-", "−")
    text = f"{value:.{max(0, 2 - magnitude)}f}"
    return text.replace("-", "−")


def whole(value: int) -> str:
    """A count with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def several(n: int, what: str) -> str:
    """ "1 net", "3 nets"."""
    return f"{whole(n)} {what}" + ("" if n == 1 else "s")


def share(value: float | None) -> str:
    """A share 0..1 as a percentage."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}\u202f%"


def measure(value: float) -> str:
    """A measure of one image: two decimals."""
    return f"{value:.2f}".replace("-", "−")

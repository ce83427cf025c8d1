"""The drawings of a page as SVG text: same numbers, same bytes; colours that survive colour-blindness and grey."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

REAL, SYNTHETIC, RULE = "#0072B2", "#D55E00", "#6B6B6B"  # Okabe & Ito (2008): blue and vermilion, and a grey
WIDTH, HEIGHT = 4.2, 2.1  # inches at 96 pixels: readable on a phone without zooming
BINS = 30

STYLE: Any = {
    "svg.fonttype": "none",  # letters stay letters: the page's own font, selectable, small
    "svg.hashsalt": "mgdm",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": "#333333",
    "xtick.color": RULE,
    "xtick.labelcolor": "#333333",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def spread(before: Sequence[float], after: Sequence[float], name: str, top: float | None = None) -> str:
    """Two histograms on one axis: the measure before (outline) and after (filled) the disturbance."""
    with _canvas() as (figure, axes):
        edges = _edges([*before, *after], 0.0, top)
        axes.hist(before, bins=edges, histtype="step", color=REAL, linewidth=1.6, label="before")
        axes.hist(after, bins=edges, color=SYNTHETIC, alpha=0.45, label="after")
        for values, colour, dash in ((before, REAL, (0, (2, 2))), (after, SYNTHETIC, "solid")):
            axes.axvline(_median(values), color=colour, linewidth=1.2, linestyle=dash)
        _finish(axes, name)
        return _svg(figure, f"Histogram of the {name} of all images before and after the disturbance")


def copy_scores(synthetic: Sequence[float], real: Sequence[float], threshold: float | None) -> str:
    """Shares of synthetic and of new real images by copy score, and the threshold."""
    with _canvas() as (figure, axes):
        edges = _edges([*synthetic, *real], 0.0, None)
        for values, label in ((real, "new real images"), (synthetic, "synthetic images")):
            weights = [100.0 / len(values)] * len(values)
            if label.startswith("new"):
                axes.hist(values, edges, weights=weights, histtype="step", color=REAL, linewidth=1.6, label=label)
            elif len(values):
                axes.hist(values, edges, weights=weights, color=SYNTHETIC, alpha=0.45, label=label)
        if threshold is not None:
            axes.axvline(threshold, color="#222222", linewidth=1.2, linestyle=(0, (4, 2)))
            axes.annotate(
                "threshold", (threshold, 0.96), xycoords=("data", "axes fraction"), xytext=(-4, 0),
                textcoords="offset points", ha="right", va="top", fontsize=8.5,
            )  # fmt: skip
        _finish(axes, "copy score (0 is a copy)")
        return _svg(figure, "Histogram of the copy scores of synthetic images and of new real images")


def strip(value: float, lo: float | None, hi: float | None, baseline: float | None, most: float, least: float) -> str:
    """A small drawing of one number: its interval as a line, its value as a dot, the baseline as an upright mark."""
    width, height = 150.0, 22.0

    def at(number: float) -> str:
        share = (number - least) / (most - least) if most > least else 0.5
        return f"{4 + min(max(share, 0.0), 1.0) * (width - 8):.1f}"

    parts = [f'<line class="axis" x1="4" x2="{width - 4:g}" y1="11" y2="11"/>']
    if least < 0 < most:
        parts.append(f'<line class="zero" x1="{at(0.0)}" x2="{at(0.0)}" y1="6" y2="16"/>')
    if baseline is not None:
        parts.append(f'<line class="base" x1="{at(baseline)}" x2="{at(baseline)}" y1="2" y2="20"/>')
    if lo is not None and hi is not None:
        parts.append(f'<line class="range" x1="{at(lo)}" x2="{at(hi)}" y1="11" y2="11"/>')
    parts.append(f'<circle class="dot" cx="{at(value)}" cy="11" r="3.6"/>')
    return f'<svg class="strip" viewBox="0 0 {width:g} {height:g}" aria-hidden="true">{"".join(parts)}</svg>'


def forest(
    rows: Sequence[tuple[str, Sequence[tuple[str, float, float, float]], tuple[float, float, float]]], against: str
) -> str:
    """Gains in points: for each arm (name, its nets as (name, value, lo, hi), all nets as (value, lo, hi)) a block of lines.

    A square and its line are one net, the diamond is all of them; what touches the upright line at 0 may be chance.
    """
    lines = sum(len(nets) + 2 for _, nets, _ in rows)
    with _canvas(height=0.55 + 0.19 * lines) as (figure, axes):
        axes.axvline(0.0, color=RULE, linewidth=1.0)
        ticks: list[tuple[float, str]] = []
        at = 0.0
        for arm, nets, (value, lo, hi) in rows:
            for net, own, low, high in nets:
                axes.plot([100 * low, 100 * high], [at, at], color=REAL, linewidth=1.2, solid_capstyle="butt")
                axes.plot([100 * own], [at], marker="s", color=REAL, markersize=3.5)
                ticks.append((at, net))
                at += 1.0
            axes.fill(
                [100 * lo, 100 * value, 100 * hi, 100 * value],
                [at, at - 0.36, at, at + 0.36],
                color=SYNTHETIC,
                linewidth=0.8,
            )
            ticks.append((at, f"{arm}, all nets"))
            at += 1.9
        axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=8.5)
        axes.tick_params(axis="y", length=0, labelcolor="#333333")
        axes.set_ylim(at - 0.9, -0.8)
        axes.set_xlabel(f"points of balanced accuracy over {against}")
        return _svg(figure, f"Gain of each arm over {against}, by net and over all nets, with 95 % intervals")


@contextmanager
def _canvas(height: float = HEIGHT) -> Iterator[tuple[Canvas, Axes]]:
    """One plot in the house's style, drawn without a display and without touching matplotlib's global state."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _finish(axes: Any, label: str) -> None:
    axes.set_xlabel(label)
    axes.set_yticks([])
    axes.margins(y=0.08)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=1.4, fontsize=8.5)


def _edges(values: Sequence[float], least: float, most: float | None) -> list[float]:
    top = most if most is not None else max([*values, least + 1e-9]) * 1.02
    return [least + (top - least) * i / BINS for i in range(BINS + 1)]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _svg(figure: Canvas, title: str) -> str:
    """The figure as an SVG element: no prologue, no fixed size, no date, a title for who does not see it."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img">'
    return re.sub(r"<svg[^>]*>", f"{head}<title>{title}</title>", text, count=1).strip()

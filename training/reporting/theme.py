"""Charts that belong to a page: matplotlib drawings as inline SVG whose colours are the page's CSS variables.

Text stays text, in the page's font; every grey and every colour of matplotlib's cycle becomes a variable that
`page.css` defines for light and for dark. So pictures made elsewhere (`training.pictures`) fit in as well.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

WIDTH_IN = 10.0
"""Of a chart over the whole page; 72 units an inch."""
COLOURS = {
    "#1f77b4": "--blue",
    "#ff7f0e": "--orange",
    "#2ca02c": "--green",
    "#d62728": "--red",
    "#9467bd": "--purple",
    "#8c564b": "--brown",
    "#e377c2": "--pink",
    "#bcbd22": "--olive",
    "#17becf": "--cyan",
    "#ff9896": "--red-2",
    "#8c1a1a": "--red-3",
}
GREYS = 20
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": "0.3",
    "axes.edgecolor": "0.7",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.transparent": True,
    "grid.color": "0.85",
    "grid.linewidth": 0.6,
    "xtick.color": "0.7",
    "ytick.color": "0.7",
    "xtick.labelcolor": "0.3",
    "ytick.labelcolor": "0.3",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
}


@contextmanager
def styled() -> Iterator[None]:
    """While active, figures look as the page wants them."""
    with matplotlib.rc_context(STYLE):
        yield


def inline(figure: Figure, title: str, description: str) -> str:
    """The figure as an `<svg>` element, closed afterwards; screen readers read title and description.

    Together they are unlike those of the page's other charts: ids inside are made of them.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title + description}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return themed(buffer.getvalue(), title, description)


def themed(svg: str, title: str, description: str) -> str:
    """Matplotlib's SVG document as an element: no metadata, no fixed size, CSS variables for colours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", body)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"font: ((?:\w+ )*?)([\d.]+)px [^;\"]+", _font, body)
    body = re.sub(r"#([0-9a-f]{6})\b", _colour, body)
    view = re.search(r'viewBox="([^"]+)"', body)
    assert view is not None
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {spaces} viewBox="{view[1]}"'
    name = html.escape(f"{title}. {description}", quote=True)
    start = f'{head} role="img" aria-label="{name}">\n<title>{html.escape(title)}</title>'
    return start + body[body.index(">") + 1 :].strip()


def _font(found: re.Match[str]) -> str:
    kind = found[1].strip()
    weight = "; font-weight: 600" if "bold" in kind else ""
    return f"font-size: {found[2]}px{weight}"


def _colour(found: re.Match[str]) -> str:
    hexadecimal = found[0]
    if hexadecimal in COLOURS:
        return f"var({COLOURS[hexadecimal]})"
    parts = {hexadecimal[i : i + 2] for i in (1, 3, 5)}
    if len(parts) > 1:
        return hexadecimal
    return f"var(--grey-{round(int(parts.pop(), 16) / 255 * GREYS)})"


def variables(dark: bool) -> str:
    """CSS declarations of the greys: 0 is ink, GREYS is paper; the dark page has them the other way round."""
    ink, paper = ((238, 240, 243), (20, 23, 28)) if dark else ((23, 26, 31), (255, 255, 255))
    lines = []
    for step in range(GREYS + 1):
        # light greys are near each other on dark paper: grids must not shout there
        share = (step / GREYS) ** (0.8 if dark else 1.0)
        mixed = [round(a + (b - a) * share) for a, b in zip(ink, paper, strict=True)]
        lines.append(f"--grey-{step}: rgb({mixed[0]} {mixed[1]} {mixed[2]});")
    return " ".join(lines)

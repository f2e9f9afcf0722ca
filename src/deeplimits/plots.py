"""One style for every figure; functions that take `ax` and data and return `ax`."""

import sys
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .checks import require_whole, require_within
from .statistics import Slope

# Okabe and Ito's colours in an order whose neighbours differ in grey as well; markers
# and line styles tell the series apart where colour cannot.
COLOURS = ("#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#000000", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
SEQUENTIAL = "cividis"
# A phone shows a panel 358 CSS pixels wide: its smallest text is then 9 of them high.
PANEL = (4.8, 3.2)  # inches
SMALLEST = 9  # points
SLOT = 3.4  # inches: the width of one panel of several


def use_style() -> None:
    """Set the style of the book: opaque, readable in grey and to the colour-blind.

    ```pycon
    >>> use_style()
    >>> mpl.rcParams["font.size"], mpl.rcParams["figure.facecolor"]
    (10.0, 'white')
    ```
    """
    mpl.rcParams.update(
        {
            "figure.figsize": PANEL,
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.prop_cycle": cycler(color=COLOURS)
            + cycler(marker=_MARKERS)
            + cycler(linestyle=_LINES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.formatter.min_exponent": 2,  # 0.6, not 6 x 10^-1, on short log axes
            "grid.alpha": 0.3,
            "font.size": SMALLEST + 1,
            "axes.titlesize": SMALLEST + 1,
            "xtick.labelsize": SMALLEST,
            "ytick.labelsize": SMALLEST,
            "legend.fontsize": SMALLEST,
            "legend.frameon": False,
            "legend.handlelength": 1.4,
            "legend.handletextpad": 0.5,
            "legend.borderaxespad": 0.3,
            "lines.markersize": 5,
            "image.cmap": SEQUENTIAL,
        }
    )
    _show_whole_figures()


def _show_whole_figures() -> None:
    """Notebooks cut figures to their ink: then no panel has the width of its slot."""
    shell = (ipython := sys.modules.get("IPython")) and ipython.get_ipython()
    if shell:
        from matplotlib_inline.config import InlineBackend

        backend = InlineBackend.instance(parent=shell)
        backend.set_trait("print_figure_kwargs", {"bbox_inches": None})


def panels(
    columns: int, rows: int = 1, *, height: float = 3.2
) -> tuple[Figure, np.ndarray]:
    """A figure of panels in slots of one width, and its axes, `(columns,)` or
    `(rows, columns)`.

    What belongs to a panel, its colour bar and legend too, stays in its slot: on a
    narrow page the columns stand one below the other (image class `panels-COLUMNS`).

    ```pycon
    >>> figure, axes = panels(3)
    >>> axes.shape, float(figure.get_figheight())
    ((3,), 3.2)
    ```
    """
    require_whole(columns=columns, rows=rows)
    require_within("(0, inf)", height=height)
    figure = plt.figure(figsize=(SLOT * columns, height * rows))
    slots = figure.subfigures(1, columns, wspace=0, squeeze=False)[0]
    axes = [slot.subplots(rows, 1, squeeze=False)[:, 0] for slot in slots]
    grid = np.stack(axes, axis=1)
    return figure, grid[0] if rows == 1 else grid


def rate(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    *,
    slope: Slope | None = None,
    predicted: float | None = None,
    label: str | None = None,
    **style,
) -> Axes:
    """Errors against depth on log axes: points, fitted line, predicted slope.

    For repeats, `y` of shape `(repeats, points)`: their geometric mean and range. The
    fits of the two halves of the window are thin dashed lines, and their slopes stand
    in brackets in the label: where they part from the whole, the curve is no line.

    ```pycon
    >>> ax = rate(Figure().subplots(), [1, 2, 4], [1.0, 0.5, 0.25], predicted=-1)
    >>> ax.lines[1].get_ydata().round(2).tolist()  # a little below the points
    [0.6, 0.3, 0.15]
    ```
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    rows = np.atleast_2d(y)
    centre = np.exp(np.log(rows).mean(0))
    if slope is not None:
        label = f"{label or 'measured'}: slope {signed(slope.value)}"
        if slope.halves:
            label += f" ({', '.join(signed(half.value) for half in slope.halves)})"
    [points] = ax.loglog(x, centre, label=label, **({"linestyle": "none"} | style))
    colour = points.get_color()
    if len(rows) > 1:
        ax.fill_between(x, rows.min(0), rows.max(0), color=colour, alpha=0.2, lw=0)
    if slope is not None:
        ax.loglog(x, slope.line(x), color=colour, marker="none", linestyle="-", lw=1)
        for half in slope.halves:
            ends, named = np.asarray(half.window), _once(ax, "halves (in brackets)")
            ax.loglog(ends, half.line(ends), "k--", marker="none", lw=0.7, label=named)
    if predicted is not None:
        theory = centre[-1] * (x / x[-1]) ** predicted * 0.6
        named = _once(ax, f"predicted slope {signed(predicted, 'g')}")
        ax.loglog(x, theory, "k:", marker="none", lw=1.5, label=named)
    return ax


def signed(number: float, digits: str = ".2f") -> str:
    """A number as the ticks have it: with a minus sign, where Python writes a hyphen.

    ```pycon
    >>> signed(-0.5)
    '−0.50'
    ```
    """
    return format(number, "z" + digits).replace("-", "\N{MINUS SIGN}")


def _once(ax: Axes, label: str) -> str | None:
    """The label, unless the legend has it."""
    return None if label in ax.get_legend_handles_labels()[1] else label


def shades(count: int) -> np.ndarray:
    """Colours from dark to light along the sequential map, for an ordered family.

    ```pycon
    >>> shades(3).shape
    (3, 4)
    ```
    """
    return mpl.colormaps[SEQUENTIAL](np.linspace(0.0, 0.8, count))


def depth_profile(ax: Axes, values: ArrayLike, times: ArrayLike, **style) -> Axes:
    """One weight against depth-time $s$, one line a training time, lighter = later.

    `values` has the shape `(times, depth)`. Raises `ValueError` where there are not as
    many `times` as rows.

    ```pycon
    >>> ax = depth_profile(Figure().subplots(), [[0.0, 1.0], [2.0, 3.0]], [0, 100])
    >>> ax.lines[1].get_xdata().tolist(), ax.lines[1].get_ydata().tolist()
    ([0.0, 0.5], [2.0, 3.0])
    ```
    """
    values = np.asarray(values, float)
    s = np.arange(values.shape[1]) / values.shape[1]
    options: dict[str, Any] = {"marker": "none", "linestyle": "-"} | style
    times = np.asarray(times, float)
    norm = Normalize(float(np.min(times)), float(np.max(times)))
    ramp = ListedColormap(shades(256))
    for row, colour in zip(values, ramp(norm(times)), strict=True):
        ax.plot(s, row, color=colour, **options)
    mappable = ScalarMappable(norm, ramp)
    ax.figure.colorbar(mappable, ax=ax, label="iteration", format="{x:,.0f}")
    ax.set_xlabel("depth-time $s = k/L$")
    return ax


def heat_map(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    *,
    label: str,
    logarithmic: bool = True,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """`z` of shape `(len(y), len(x))` as colours, with a colour bar named `label`.

    ```pycon
    >>> z = np.array([[1.0, 0.0], [1.0, 1.0], [np.nan, 1.0]])
    >>> ax = heat_map(Figure().subplots(), [1, 2], [1, 2, 3], z, label="error")
    >>> int(ax.collections[0].get_array().mask.sum())  # no logarithm
    2
    ```
    """
    low, high = limits if limits is not None else (None, None)
    z = np.ma.masked_invalid(np.asarray(z, float))
    z = np.ma.masked_less_equal(z, 0) if logarithmic else z
    norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
    mesh = ax.pcolormesh(x, y, z, shading="nearest", rasterized=True, norm=norm)
    ax.grid(False)
    ax.figure.colorbar(mesh, ax=ax, label=label)
    return ax


def flow_grid(ax: Axes, grid: ArrayLike, **style) -> Axes:
    """The image of a square grid, `(rows, columns, 2)`: its lines, after the flow.

    `style` goes to Matplotlib's `LineCollection`.

    ```pycon
    >>> grid = np.stack(np.meshgrid(np.arange(3.0), np.arange(2.0)), axis=-1)
    >>> ax = flow_grid(Figure().subplots(), grid)
    >>> [len(lines.get_segments()) for lines in ax.collections]  # rows and columns
    [2, 3]
    ```
    """
    grid = np.asarray(grid, float)
    along, across = list(grid), list(grid.swapaxes(0, 1))
    for lines, colour in ((along, COLOURS[0]), (across, COLOURS[1])):
        options: dict[str, Any] = {"linewidths": 0.7, "colors": colour} | style
        ax.add_collection(LineCollection(lines, **options))
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.grid(False)
    return ax


def show_legend(ax: Axes, **options) -> Axes:
    """A legend beside the axes, where it hides no data.

    ```pycon
    >>> ax = Figure().subplots()
    >>> _ = ax.plot([0, 1], label="loss")
    >>> [text.get_text() for text in show_legend(ax).get_legend().get_texts()]
    ['loss']
    ```
    """
    ax.legend(**({"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} | options))
    return ax

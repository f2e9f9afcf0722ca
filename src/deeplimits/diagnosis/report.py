"""A diagnosis as a table, as JSON, and as a figure."""

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from .. import plots
from ..files import atomic
from ..intervals import Interval
from ..variation import variogram
from .examination import Network
from .frameworks import of
from .verdict import Parameter, overall

_COLUMNS = f"{'depth':>6} {'H':>5} {'interval':>14} {'rough':>7}  verdict"
_NARROWEST = 16  # of the column of names
_MOST_ROWS = 6
_BLIND = (  # the page on it says more
    "Not seen: hidden units in another order (the same function, yet it reads rough);",
    "trend plus noise, here 'neither': an ODE with 1/L, an SDE with drift with L^-1/2.",
)
_GUIDE = "  (increment over weight: L^-1 smooth, L^-1/2 Brownian paths, L^0 noise)"


def table(parameters: Sequence[Parameter]) -> str:
    """Regularity at every depth, exponents over depths, and the verdicts."""
    names = max([_NARROWEST, *(len(parameter.name) for parameter in parameters)])
    lines = [f"{'parameter':{names}} {_COLUMNS}"]
    for parameter in parameters:
        name = f"{parameter.name:{names}}"
        lines += [f"{name} {_row(network)}" for network in parameter.networks]
        for name, slope in parameter.exponents.items():
            lines.append(f"  {name:24} goes like L^{slope:.2f}")
        if parameter.exponents:
            lines.append(_GUIDE)
        verdict = f"{parameter.verdict} ({parameter.reason})"
        lines += textwrap.wrap(
            verdict, 80, initial_indent="  => ", subsequent_indent="     "
        )
    return "\n".join([*lines, f"The network: {overall(parameters)}", *_BLIND])


def _row(network: Network) -> str:
    value, interval = "", ""
    if network.regularity is not None and math.isfinite(network.regularity.value):
        value, interval = f"{network.regularity:.2f}".split(" ", 1)
    measured = f"{network.depth:6} {value:>5} {interval:>14} {network.roughness:7.3f}"
    return f"{measured}  {network.verdict}"


def to_json(parameters: Sequence[Parameter]) -> str:
    """Everything measured; null where a number is not finite."""
    content = {"verdict": overall(parameters), "parameters": list(parameters)}
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Interval):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figure(networks: Sequence[Any]) -> Figure:
    """Norms, increments and spectra across depth: a row a parameter, the first six."""
    plots.use_style()
    arrays = [of(network) for network in networks]
    names = list(arrays[0])[:_MOST_ROWS]
    drawing, axes = plots.panels(3, len(names), height=2.8)
    axes = np.atleast_2d(axes)
    ordered = sorted(arrays, key=lambda weights: weights.shapes[names[0]][0])
    for name, row in zip(names, axes, strict=True):
        rows = [np.asarray(weights[name], float) for weights in ordered]
        rows = [array.reshape(len(array), -1) for array in rows]
        profile(row[0], rows).set_title(name, loc="left")
        increments(row[1], rows)
        spectra(row[2], rows)
    axes[0, 2].legend()
    return drawing


def save_figure(networks: Sequence[Any], path: Path) -> None:
    """Write `figure` whole or not at all, in the format that the name ends in.

    Raises `ValueError` for another format, and where the file cannot be written.
    """
    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:] not in kinds:
        raise ValueError(f"{path} must end in one of .{', .'.join(sorted(kinds))}.")
    drawing = figure(networks)
    try:
        with atomic(path) as temporary:
            drawing.savefig(temporary, format=path.suffix[1:])
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error}).") from error
    finally:
        plt.close(drawing)


def profile(ax: Axes, rows: Sequence[np.ndarray]) -> Axes:
    """The norm of every layer against depth-time."""
    for weights, style in _styled(rows):
        s = np.arange(len(weights)) / len(weights)
        ax.plot(s, np.linalg.norm(weights, axis=1), **style)
    ax.set(xlabel="depth-time $k/L$", ylabel="norm of the layer")
    return ax


def increments(ax: Axes, rows: Sequence[np.ndarray]) -> Axes:
    r"""$V(m)$ against $m$, with the slopes of noise (1) and of smooth weights (4)."""
    for weights, style in _styled(rows):
        lags = 2 ** np.arange(max(1, int(np.log2(len(weights) / 4)) + 1))
        values = variogram(weights, [m for m in lags.tolist() if 2 * m <= len(weights)])
        _positive(ax, lags[: len(values)], values, **style)
        if weights is rows[-1] and values[0] > 0:
            for slope, line in ((1, ":"), (4, "--")):
                guide = values[0] * lags[: len(values)] ** float(slope)
                ax.loglog(
                    lags[: len(values)], guide, "k", linestyle=line, marker="none"
                )
    ax.set(xlabel="lag $m$ in layers", ylabel="$V(m)$; guides $m$, $m^4$")
    return ax


def spectra(ax: Axes, rows: Sequence[np.ndarray]) -> Axes:
    """The power of every frequency along depth: flat for white noise."""
    for weights, style in _styled(rows):
        window = np.hanning(len(weights) + 1)[:-1, None]
        power = np.abs(np.fft.rfft(window * (weights - weights.mean(0)), axis=0)) ** 2
        values = power.mean(1)[1:] / len(weights)
        _positive(ax, np.arange(1, len(values) + 1), values, **style)
    ax.set(xlabel="cycles over the depth", ylabel="power")
    return ax


def _positive(ax: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.plot(x[y > 0], y[y > 0], **style)


def _styled(
    rows: Sequence[np.ndarray],
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Each network with its shade, dark to light as they get deeper, and its label."""
    for weights, colour in zip(rows, plots.shades(len(rows)), strict=True):
        style: dict[str, Any] = {"color": colour, "marker": "none", "linestyle": "-"}
        yield weights, style | {"label": f"depth {len(weights)}"}

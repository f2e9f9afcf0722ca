"""A diagnosis as a table, as JSON, and as a figure."""

import json
import math
import textwrap
import warnings
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
from .examination import Network, figures
from .frameworks import of
from .verdict import Parameter, decision, overall, pooled

_COLUMNS = f"{'depth':>6} {'noise H':>7} {'interval':>15} {'sums':>17}  verdict"
_NARROWEST = 16  # of the column of names
_MOST_ROWS = 6
_GUIDE = (
    "noise H: 0.50 independent layers, above 1 no noise. sums: over layers, over those "
    "of noise; 1 without a trend"
)
_SLOPES = "(increment over weight: L^-1 smooth, L^-1/2 Brownian paths, L^0 noise)"
_BLIND = (
    "Weights alone are read, no data. Not told from one depth: memory of layers from "
    "that of a path; whether sums vanish or explode; trends too small for so few "
    "layers; hidden units of a lone matrix. The page diagnose has more."
)


def table(parameters: Sequence[Parameter]) -> str:
    """Noise and trend at every depth, exponents over depths, and the verdicts.

    ```pycon
    >>> from deeplimits.diagnosis import diagnose
    >>> weights = {"weight": np.random.default_rng(0).standard_normal((128, 9, 9))}
    >>> "The network: rough: SDE" in table(diagnose([weights]))
    True
    ```
    """
    names = max([_NARROWEST, *(len(_shown(p.name)) for p in parameters)])
    lines = [f"{'parameter':{names}} {_COLUMNS}"]
    for parameter in parameters:
        lines += _lines(parameter, names)
    verdict, reason = decision(parameters)
    lines += [*_stages(parameters), f"The network: {verdict}"]
    lines += _wrapped(reason, "  ")
    if (found := pooled(parameters)) is not None:
        lines.append(f"  noise of all its matrices together: H = {found:.2f}")
    return "\n".join([*lines, *_wrapped(_GUIDE, ""), *_wrapped(_BLIND, "")])


def _shown(name: str) -> str:
    """A name, in quotes where it could be read as a line of the report."""
    return repr(name) if ": " in f"{name} " or name != name.strip() else name


def _lines(parameter: Parameter, names: int) -> Iterator[str]:
    name = f"{_shown(parameter.name):{names}}"
    for network in parameter.networks:
        yield f"{name} {_row(network)}"
    for key, slope in parameter.exponents.items():
        yield f"  {key:24} goes like L^{slope:.2f}"
    if parameter.exponents:
        yield f"  {_SLOPES}"
    apart = "" if parameter.votes else " (does not vote)"
    yield from _wrapped(f"{parameter.verdict} ({parameter.reason}){apart}", "  => ")
    if parameter.limits:
        limits = [f"{limit} at {factor}" for factor, limit in parameter.limits.items()]
        yield from _wrapped("; ".join(limits), "     ")


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(
        text, 88, initial_indent=start, subsequent_indent=" " * len(start)
    )


def _row(network: Network) -> str:
    value, interval, sums = "", "", ""
    if network.regularity is not None and math.isfinite(network.regularity.low):
        value, interval = f"{network.regularity:.2f}".split(" ", 1)
    if network.sums is not None and math.isfinite(network.sums.high):
        sums = figures(network.sums)
    measured = f"{network.depth:6} {value:>7} {interval:>15} {sums:>17}"
    return f"{measured}  {network.verdict}"


def _stages(parameters: Sequence[Parameter]) -> Iterator[str]:
    """A line for each stage, where the names tell of several."""
    stages: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        if parameter.votes and "#" in parameter.name:
            stage = parameter.name.split("#")[0].strip(".")
            stages.setdefault(stage, []).append(parameter)
    if len(stages) > 1:
        for stage, members in stages.items():
            depth = members[0].networks[-1].depth
            yield f"Stage {stage}, {depth} layers: {overall(members)}"


def to_json(parameters: Sequence[Parameter]) -> str:
    """Everything measured; null where a number is not finite."""
    verdict, reason = decision(parameters)
    content = {
        "verdict": verdict,
        "reason": reason,
        "noise": pooled(parameters),
        "parameters": list(parameters),
    }
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
    """Norms, increments and spectra across depth: a row a parameter, the first six.

    ```pycon
    >>> weights = {"weight": np.random.default_rng(0).standard_normal((16, 4))}
    >>> [ax.get_xlabel() for ax in figure([weights]).axes]
    ['depth-time $k/L$', 'lag $m$ in layers', 'cycles over the depth']
    ```
    """
    plots.use_style()
    arrays = [of(network) for network in networks]
    names = list(arrays[0])[:_MOST_ROWS]
    drawing, axes = plots.panels(3, len(names), height=2.8)
    axes = np.atleast_2d(axes)
    ordered = sorted(arrays, key=lambda weights: weights.shapes[names[0]][0])
    for name, row in zip(names, axes, strict=True):
        rows = [np.asarray(weights[name], float) for weights in ordered]
        rows = [array.reshape(len(array), -1) for array in rows]
        profile(row[0], rows).set_title(name, loc="left", parse_math=False)
        increments(row[1], rows)
        spectra(row[2], rows)
    axes[0, 2].legend()
    return drawing


def save_figure(networks: Sequence[Any], path: Path) -> None:
    """Write `figure` whole or not at all, in the format that the name ends in.

    Raises `ValueError` for another format, and where the file cannot be written.
    """
    # all but the one that needs TeX
    kinds = set(FigureCanvasBase.get_supported_filetypes()) - {"pgf"}
    if path.suffix[1:] not in kinds:
        raise ValueError(f"{path} must end in one of .{', .'.join(sorted(kinds))}.")
    drawing = figure(networks)
    try:
        with atomic(path) as temporary, warnings.catch_warnings():
            # names may be written in letters that the font lacks: there they are boxes
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            drawing.savefig(temporary, format=path.suffix[1:])
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error}).") from error
    finally:
        plt.close(drawing)


def profile(ax: Axes, rows: Sequence[np.ndarray]) -> Axes:
    """The norm of every layer against depth-time.

    ```pycon
    >>> ax = profile(Figure().subplots(), [np.array([[3.0, 4.0], [6.0, 8.0]])])
    >>> ax.lines[0].get_xdata().tolist(), ax.lines[0].get_ydata().tolist()
    ([0.0, 0.5], [5.0, 10.0])
    ```
    """
    for weights, style in _styled(rows):
        s = np.arange(len(weights)) / len(weights)
        ax.plot(s, np.linalg.norm(weights, axis=1), **style)
    ax.set(xlabel="depth-time $k/L$", ylabel="norm of the layer")
    return ax


def increments(ax: Axes, rows: Sequence[np.ndarray]) -> Axes:
    r"""$V(m)$ against $m$, with the slopes of noise (1) and of smooth weights (4).

    ```pycon
    >>> ax = increments(Figure().subplots(), [np.arange(16.0)[:, None]])
    >>> values = ax.lines[0].get_ydata()
    >>> (values / values[0]).round(3).tolist()  # of a smooth path: m⁴
    [1.0, 16.0, 256.0]
    ```
    """
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
    """The power of every frequency along depth: flat for white noise.

    ```pycon
    >>> waves = np.cos(2 * np.pi * 5 * np.arange(64) / 64)[:, None]
    >>> (line,) = spectra(Figure().subplots(), [waves]).lines
    >>> int(line.get_xdata()[line.get_ydata().argmax()])
    5
    ```
    """
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

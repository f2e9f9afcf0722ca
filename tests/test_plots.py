"""The figures' functions: what they draw, and that the style is readable in grey."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from deeplimits import plots, statistics


def test_rate_draws_points_fit_and_prediction(ax):
    x = np.array([2.0, 4.0, 8.0])
    slope = statistics.loglog_slope(x, 1 / x)
    assert plots.rate(ax, x, 1 / x, slope=slope, predicted=-1.0) is ax
    labels = [text for text in ax.get_legend_handles_labels()[1]]
    assert labels == ["measured: slope −1.00", "predicted slope −1"]
    theory = ax.lines[-1].get_ydata()
    assert np.log(theory[-1] / theory[0]) / np.log(4) == pytest.approx(-1)


def test_rate_draws_both_halves_where_they_are_and_says_their_slopes(ax):
    """Thin and dashed, each over its own depths; the curve bends at 16."""
    x = 2.0 ** np.arange(9)
    y = np.maximum(1 / x, 1 / 16)
    plots.rate(ax, x, y, slope=statistics.loglog_slope(x, y), label="bent")
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["bent: slope −0.50 (−1.00, 0.00)", "halves (in brackets)"]
    _, fit, lower, upper = ax.lines
    np.testing.assert_allclose(lower.get_xdata(), [1, 16])
    np.testing.assert_allclose(upper.get_xdata(), [16, 256])
    np.testing.assert_allclose(lower.get_ydata(), [1, 1 / 16])
    np.testing.assert_allclose(upper.get_ydata(), [1 / 16, 1 / 16])
    for half in (lower, upper):
        assert half.get_linestyle() == "--" != fit.get_linestyle()
        assert half.get_linewidth() < fit.get_linewidth()


def test_rate_of_repeats_draws_their_range(ax):
    y = np.array([[1.0, 0.5, 0.2], [4.0, 2.0, 0.8]])
    plots.rate(ax, [2.0, 4.0, 8.0], y)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2.0, 1.0, 0.4])
    assert len(ax.collections) == 1


def test_neighbouring_colours_differ_in_grey():
    def grey(colour):
        return mpl.colors.to_rgb(colour) @ np.array([0.299, 0.587, 0.114])

    levels = [grey(colour) for colour in plots.COLOURS]
    assert min(abs(np.diff(levels))) > 0.1
    assert len(set(plots._MARKERS)) == len(plots.COLOURS)


def test_shades_grow_lighter():
    light = plots.shades(6)[:, :3] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light) > 0).all()


def test_profiles_have_the_colours_of_their_bar(ax):
    times = [0, 1000, 10000]
    plots.depth_profile(ax, np.arange(12.0).reshape(3, 4), times)
    beside = ax.figure.axes[1]
    np.testing.assert_array_equal(
        [line.get_color() for line in ax.lines],
        beside._colorbar.mappable.to_rgba(times),
    )
    ax.figure.draw_without_rendering()
    labels = [text.get_text() for text in beside.get_yticklabels()]
    assert labels[-1] == "10,000"
    with pytest.raises(ValueError, match="zip"):
        plots.depth_profile(ax, np.ones((3, 4)), [0, 1])


def test_maps_and_grids(ax):
    z = np.array([[1.0, np.nan], [0.0, 10.0]])
    plots.heat_map(ax, [1, 2], [3, 4], z, label="distance")
    assert ax.collections[-1].get_array().mask.tolist() == [
        [False, True],
        [True, False],
    ]
    grid = np.stack(np.meshgrid(np.arange(3.0), np.arange(4.0)), axis=-1)
    before = len(ax.collections)
    plots.flow_grid(ax, grid)
    rows, columns = ax.collections[before:]
    assert len(rows.get_segments()) == 4
    assert len(columns.get_segments()) == 3


@pytest.mark.parametrize("rows", [1, 2])
def test_what_belongs_to_a_panel_stays_in_its_slot(ax, rows):
    """With labels, a colour bar and a legend: of a page that shows slot by slot, none
    shall end in the slot beside it."""
    figure, axes = plots.panels(3, rows, height=2.5)
    assert axes.shape == ((3,) if rows == 1 else (2, 3))
    assert figure.get_size_inches().tolist() == [3 * plots.SLOT, 2.5 * rows]
    for column in np.atleast_2d(axes).T:
        for panel in column:
            plots.heat_map(panel, [1, 2], [1, 2], np.eye(2) + 1, label="a long label")
            panel.set(xlabel="abscissa", ylabel="ordinate", title="a title")
    figure.draw_without_rendering()
    width = figure.bbox.width / 3
    for i, column in enumerate(np.atleast_2d(axes).T):
        box = column[0].figure.get_tightbbox()
        assert i * width - 1 <= box.x0 < box.x1 <= (i + 1) * width + 1
    plt.close(figure)


@pytest.mark.parametrize("sizes", [{"columns": 0}, {"columns": 2, "height": np.nan}])
def test_panels_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match=r"(columns|height) must"):
        plots.panels(**sizes)

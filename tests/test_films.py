"""Films: their frames and their words, and that they ask for nothing from outside."""

import base64
import io
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from deeplimits import films

WORDS = "A line that turns, step by step"


@pytest.fixture
def turning(ax):
    """A figure, and how its frame k is drawn: a line of another slope in each."""
    (line,) = ax.plot([0, 1], [0, 1])
    ax.set(ylim=(0, 1))
    ax.figure.set_size_inches(2, 1)
    return ax.figure, lambda k: line.set_ydata([0, k / 10])


def unpacked(film):
    """The cells of the sheet, row by row, and the still."""
    pictures = (film.sheet, film.still)
    sheet, still = (np.array(Image.open(io.BytesIO(file))) for file in pictures)
    height, width, _ = still.shape
    rows, columns = film.cells
    assert sheet.shape == (rows * height, columns * width, 3)
    cells = sheet.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return cells.reshape(-1, height, width, 3), still


@pytest.mark.parametrize("frames", [2, 5, 9, 16])
def test_a_film_has_its_frames_in_order_and_then_rests(turning, frames):
    figure, draw = turning
    film = films.film(figure, draw, frames, alt=WORDS, seconds=3.0)
    cells, still = unpacked(film)
    assert len(cells) >= frames + frames // 8
    assert film.loop / len(cells) == pytest.approx(3.0 / frames)
    changes = [(a != b).any() for a, b in itertools.pairwise(cells)]
    assert changes == [True] * (frames - 1) + [False] * (len(cells) - frames)
    # Both have few colours, chosen for each: they differ by what no eye sees.
    assert np.abs(cells[-1].astype(int) - still).mean() < 1
    assert (still[0, 0] == 255).all()
    assert not plt.fignum_exists(figure.number)


def test_axes_keep_their_place_whatever_their_labels(turning):
    figure, draw = turning

    def draw_and_label(k):
        draw(k)
        figure.axes[0].set_ylabel("a label\nof lines" * (k > 0))

    places = []
    films.film(
        figure,
        lambda k: (draw_and_label(k), places.append(figure.axes[0].get_position().p0)),
        3,
        alt=WORDS,
    )
    np.testing.assert_array_equal(places[1], places[2])


def test_a_film_is_the_same_bytes_each_time_and_asks_for_nothing(ax):
    def one():
        figure, own = plt.subplots(figsize=(2, 1))
        (line,) = own.plot([0, 1], [0, 1])
        return films.film(figure, lambda k: line.set_ydata([0, k]), 3, alt=WORDS)

    page = one()._repr_html_()
    assert page == one()._repr_html_()
    assert not re.search(r"https?:|//|<script", re.sub('base64,[^")]+', "", page))
    soup = BeautifulSoup(page, "html.parser")
    assert soup.img["alt"] == WORDS
    assert soup.select_one("label > input[type=checkbox]:not([checked])")
    assert soup.img["src"].endswith(base64.b64encode(one()._repr_png_()).decode())
    assert repr(one()) == f"Film of 3 frames: {WORDS}"


def test_the_text_of_a_film_is_no_markup(turning):
    text = 'Points with "x < 1 & y > 0" move'
    page = films.film(*turning, 2, alt=text)._repr_html_()
    assert BeautifulSoup(page, "html.parser").img["alt"] == text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"frames": 1}, "frames must be a whole number of at least 2"),
        ({"frames": 10**5}, "frames must be fewer, or the figure smaller"),
        ({"seconds": 0.0}, "seconds must lie in"),
        ({"alt": "a film"}, "alt must say what is seen, in five words"),
    ],
)
def test_what_is_no_film_is_refused(turning, given, told):
    with pytest.raises(ValueError, match=told):
        films.film(*turning, **{"frames": 2, "alt": WORDS} | given)

"""Films: a figure drawn again and again, which a page plays without a script."""

import base64
import html
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .checks import require_whole, require_within

FILM_COLOURS = 64
MOST_PIXELS = 2**24  # what a phone takes as one picture
# The frames lie in one sheet, in rows. Two clocks step through it, one along the rows
# and one down. Who has asked for less motion gets one frame of each row, slowly.
FILM_STYLE = """
.dl-film { display: inline-grid; grid-template-columns: auto minmax(0, 1fr);
  align-items: center; max-width: 100%; text-align: left; }
.dl-film .dl-screen { grid-area: 1 / 1 / 2 / 3; position: relative; }
.dl-film img { display: block; max-width: 100%; height: auto; }
.dl-film .dl-sheet { display: none; position: absolute; inset: 0;
  background-size: calc(100% * var(--columns)) calc(100% * var(--rows)); }
.dl-film input { margin: 0.4rem; }
.dl-film input:checked ~ .dl-screen > .dl-sheet { display: block; animation:
  dl-across calc(var(--loop) / var(--rows)) steps(var(--columns), jump-none) infinite,
  dl-down var(--loop) steps(var(--rows), jump-none) infinite; }
@keyframes dl-across {
  from { background-position-x: 0%; } to { background-position-x: 100%; } }
@keyframes dl-down {
  from { background-position-y: 0%; } to { background-position-y: 100%; } }
@media (prefers-reduced-motion: reduce) {
  .dl-film input:checked ~ .dl-screen > .dl-sheet { background-position-x: 100%;
    animation: dl-down calc(1.5s * var(--rows)) steps(var(--rows), jump-none) infinite;
  } }
@media print {
  .dl-film input, .dl-film .dl-play { display: none; }
  .dl-film input:checked ~ .dl-screen > .dl-sheet { display: none; } }
"""


@dataclass(frozen=True)
class Film:
    """A film for a page: it is still at first, and a box below it plays and stops it.

    It needs neither a script nor another file. Where nothing plays (paper, GitHub's
    view of a record) there is the still, which is the last frame.

    ```pycon
    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots(figsize=(1, 1))
    >>> alt = "An axis that grows, step by step"
    >>> moving = film(figure, lambda k: ax.set_xlim(0, 1 + k), 4, alt=alt)
    >>> moving.frames, moving.alt
    (4, 'An axis that grows, step by step')
    ```
    """

    frames: int
    alt: str
    loop: float  # seconds; the last frame stays for an eighth of it, or longer
    cells: tuple[int, int]  # rows and columns of the sheet
    still: bytes  # PNG
    sheet: bytes  # WebP

    def _repr_png_(self) -> bytes:
        return self.still

    def _repr_html_(self) -> str:
        still, sheet = (base64.b64encode(b).decode() for b in (self.still, self.sheet))
        alt = html.escape(self.alt)
        (rows, columns), loop = self.cells, f"{self.loop:g}s"
        variables = f"--rows: {rows}; --columns: {columns}; --loop: {loop}"
        picture = f"background-image: url(data:image/webp;base64,{sheet})"
        return (
            f'<label class="dl-film" style="{variables}"><style>{FILM_STYLE}</style>'
            f'<input type="checkbox" aria-label="Play the film">'
            f'<span class="dl-play">Play the film</span><span class="dl-screen">'
            f'<img src="data:image/png;base64,{still}" alt="{alt}">'
            f'<span class="dl-sheet" style="{picture}"></span></span></label>'
        )

    def __repr__(self) -> str:
        return f"Film of {self.frames} frames: {self.alt}"


def film(
    figure: Figure,
    draw: Callable[[int], Any],
    frames: int,
    *,
    alt: str,
    seconds: float = 6.0,
) -> Film:
    """A film of `frames` pictures; before picture `k`, `draw(k)` changes the figure.

    The axes keep the place that they have in the first picture. Panels of a film stand
    one below the other (`panels(1, rows=2)`), so that a phone shows them. `alt` says in
    words what is to be seen. Sixteen points with their traces in 48 frames take about
    250 kB of a record; hundreds of points take three times as much.

    Raises `ValueError` for under 2 frames, for more than a phone takes (16 million
    pixels in all), for `seconds` that are not positive, and for an `alt` of under five
    words.

    ```pycon
    >>> figure = Figure(figsize=(1, 1))
    >>> moving = film(figure, lambda k: None, 8, alt="A figure on which nothing moves")
    >>> moving.frames, moving.cells, moving.loop  # a ninth for the last frame to stay
    (8, (3, 3), 6.75)
    ```
    """
    require_whole(2, frames=frames)
    require_within("(0, inf)", seconds=seconds)
    if len(alt.split()) < 5:
        raise ValueError(f"alt must say what is seen, in five words: got {alt!r}.")
    cells = frames + frames // 8
    columns = max(2, math.ceil(cells**0.5))
    rows = max(2, math.ceil(cells / columns))
    pixels = rows * columns * math.prod(FigureCanvasAgg(figure).get_width_height())
    if pixels > MOST_PIXELS:
        raise ValueError(
            f"frames must be fewer, or the figure smaller: {frames} frames take "
            f"{pixels} pixels, more than {MOST_PIXELS}."
        )
    pictures = _pictures(figure, draw, frames)
    pictures += pictures[-1:] * (rows * columns - frames)
    lines = [
        np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)
    ]
    loop = seconds * rows * columns / frames
    sheet = _packed(np.vstack(lines), "WEBP", lossless=True)
    still = _packed(pictures[-1], "PNG", optimize=True)
    return Film(frames, alt, loop, (rows, columns), still, sheet)


def _pictures(
    figure: Figure, draw: Callable[[int], Any], frames: int
) -> list[np.ndarray]:
    """The frames, `(height, width, 3)` each; the figure is closed."""
    canvas = FigureCanvasAgg(figure)
    pictures = []
    for k in range(frames):
        draw(k)
        if k == 0:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        canvas.draw()
        pictures.append(np.array(canvas.buffer_rgba())[..., :3])
    plt.close(figure)
    return pictures


def _packed(picture: np.ndarray, form: str, **options) -> bytes:
    """In a few colours, which take few bytes."""
    image = Image.fromarray(picture).quantize(FILM_COLOURS, dither=Image.Dither.NONE)
    image.convert("RGB").save(file := io.BytesIO(), form, **options)
    return file.getvalue()

"""Make the card that is shown where a page is shared: the cover, and the title.

`python tools/card.py` writes book/_static/card.png (1200 × 630 pixels).
"""

from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

STATIC = Path(__file__).resolve().parents[1] / "book" / "_static"
SIZE = (1200, 630)
QUESTION = "What does a residual network become\nwhen it is infinitely deep?"


def font(size: int, weight: str = "regular") -> ImageFont.FreeTypeFont:
    """The font that comes with Matplotlib."""
    properties = font_manager.FontProperties(family="DejaVu Sans", weight=weight)
    return ImageFont.truetype(font_manager.findfont(properties), size)


def draw() -> Image.Image:
    card = Image.new("RGB", SIZE, "white")
    cover = Image.open(STATIC / "cover.png").convert("RGB")
    cover.thumbnail((1080, 380))
    card.paste(cover, ((SIZE[0] - cover.width) // 2, SIZE[1] - cover.height - 30))
    pen = ImageDraw.Draw(card)
    pen.text((60, 36), "Deep Limits", fill="black", font=font(64, "bold"))
    pen.text((60, 124), QUESTION, fill="#333333", font=font(34))
    return card.quantize(32)


if __name__ == "__main__":
    draw().save(STATIC / "card.png", optimize=True)

"""Deep Limits: what a residual network becomes when it is infinitely deep."""

from importlib.metadata import version

__version__ = version("deeplimits")

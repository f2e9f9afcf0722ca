"""Deep Limits: what a residual network becomes when it is infinitely deep.

Importing the package loads none of its modules. Each is loaded where it is first used,
as `deeplimits.residual` or by an import of its own.
"""

import importlib
import pkgutil
from importlib.metadata import version
from types import ModuleType

__all__ = ["__version__"]
__version__ = version("deeplimits")


def __getattr__(name: str) -> ModuleType:
    if name in _modules():
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_modules()})


def _modules() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)}

"""Find the parameters of one skill in a language model, edit them, and measure the effect.

The names stand in `__init__.pyi`; each is imported, with torch, at its first use. The modules
are listed in docs/CONTRIBUTING.md.
"""

import sys
import types

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Package(types.ModuleType):
    """`locate` and `evaluate` are functions here, and names of folders, too.

    Python would put a folder in the function's place when it is imported.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

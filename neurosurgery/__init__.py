"""Find the parameters of one skill in a language model, edit them, and measure the effect.

The names stand in `__init__.pyi`; each is imported, with torch, at its first use. The modules
are listed in docs/CONTRIBUTING.md.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Skill localisation in language models: find the parameters of one skill, edit them, prove it.

The modules, in the order in which data flow through them, are listed in CONTRIBUTING.md.
"""

__version__ = "0.1.0"

"""The templates of the pages."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from neurosurgery.common.terminal import visible_text

_PARTS = Path(__file__).parent


def template(name: str) -> Template:
    """A template of this folder, which escapes all data; unseen characters are shown."""
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_visible,
    )
    return environment.get_template(name)


def _visible(value: object) -> object:
    """A text without control characters; the parts of the page, which are markup, as they are."""
    return visible_text(value) if type(value) is str else value

"""The reference page of all settings, docs/SETTINGS.md.

`python -m neurosurgery.cli.reference > docs/SETTINGS.md` writes it. Every setting stands once:
a script's part leaves out what an earlier script has just so.
"""

from __future__ import annotations

from collections.abc import Iterator

from neurosurgery.cli.scripts import SCRIPTS, groups_of
from neurosurgery.common.terminal import say
from neurosurgery.settings.declare import Setting
from neurosurgery.settings.identity import CELLS

_HEAD = """\
# Settings

Made from the declarations in `neurosurgery/settings/parts.py` and `neurosurgery/cli/scripts.py` by
`python -m neurosurgery.cli.reference`; a test holds that it is current.

Every setting is a flag `--NAME` and a key NAME of a YAML file: `--config run.yaml`. Flags win over
the file; `--no_NAME` turns a switch off that the file turns on. Published names of flags work as
well, in files, too; `-` is read as `_`. Every run leaves its settings in `run.yaml` of its folder,
by script, so that

    python MathNeuro.py --config results/x/run.yaml --save_path results/y

repeats it elsewhere. Such a file holds neither where results go nor what deletes them or runs
foreign code: the settings marked *flag only*. In a setting that is marked *identity* no two runs in
a folder may differ: of the whole folder, or of what path patching or the trainings make in it. The
contents of files and of the model, what tasks ask, and the number format are compared besides.

## Published names

| published | clear |
|---|---|
"""


def reference_text() -> str:
    """The page in Markdown."""
    return _HEAD + "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    every = [one for script in SCRIPTS for group in groups_of(script).values() for one in group]
    for published, name in dict.fromkeys((one.published, one.name) for one in every):
        if published:
            yield f"| `--{published}` | `--{name}` |"
    seen: set[Setting] = set()
    for place, script in enumerate(SCRIPTS):
        yield ""
        yield f"## {script}{'' if place == 0 else ', what differs from the scripts above'}"
        for title, group in groups_of(script).items():
            new = [one for one in group if one not in seen]
            if not new:
                continue
            seen |= set(new)
            yield from ("", f"**{title[0].upper()}{title[1:]}**", "")
            yield "| setting | takes | default | what |"
            yield "|---|---|---|---|"
            yield from map(_row, new)


def _row(one: Setting) -> str:
    part = "" if one.identity == CELLS else f" of {one.identity}"
    marks = {"flag only": not one.travels, f"identity{part}": one.identity != ""}
    what = one.help + "".join(f" *({mark})*" for mark, holds in marks.items() if holds)
    default = one.default_text
    if one.kind is bool:
        default = "off; demo: on" if one.demo else "off"
    cells = (f"`{one.name}`", _takes(one), default, what)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _takes(one: Setting) -> str:
    if one.choices is not None:
        values = ", ".join(one.choices)
    elif one.range is not None:
        values = one.range.text
    else:
        values = {bool: "switch", int: "whole number", float: "number"}.get(one.kind, "text")
        values = one.metavar or values
    return f"{values}; one or more" if one.many else values


if __name__ == "__main__":
    say(reference_text().removesuffix("\n"))

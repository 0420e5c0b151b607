"""Write figures and a page from a results folder. Loads no model."""

from __future__ import annotations

import re
from pathlib import Path

_OURS = re.compile(
    r"(isolation|proportion|units|scalar|number|where|consistency|gains|losses|effects|attention"
    r"|knock_out|transfer|experts)(_.*)?\.(png|pdf)"
)


def make_report(save_path: Path, flag: str = "SAVE_PATH") -> Path:
    """Write figures (PNG, PDF) and report.html under `save_path/report`; return the page's path.

    Args:
        save_path: the results folder.
        flag: what errors call it.

    Raises:
        UsageError: the folder holds no results of the scripts, or a damaged file.
    """
    # altair takes a second to import, so only a report imports it.
    from neurosurgery.common.files import write_atomically
    from neurosurgery.common.folders import make_folder, must_stay
    from neurosurgery.report.figures.figure import Figure, save
    from neurosurgery.report.figures.folder import all_figures
    from neurosurgery.report.page.page import render_page
    from neurosurgery.report.read.experts import read_routing
    from neurosurgery.report.read.folder import read_folder
    from neurosurgery.report.read.points import grid_points
    from neurosurgery.report.read.units import read_units
    from neurosurgery.report.unit_lists import unit_lists

    folder = read_folder(save_path, flag)
    points = grid_points(folder)
    routing = read_routing(save_path, flag, folder.skill)
    units = unit_lists(read_units(save_path / "masks" / folder.model, flag, folder.skill), routing)
    target = save_path / "report"
    with must_stay(save_path):
        sections = all_figures(folder, points)
        make_folder(target)
        figures = [item for _, items in sections for item in items if isinstance(item, Figure)]
        drawn = {figure.name: save(figure, target) for figure in figures}
        for old in target.iterdir():
            # An old figure whose data are gone would look like a figure of this report.
            if _OURS.fullmatch(old.name) and old.stem not in drawn:
                old.unlink()
        page = target / "report.html"
        write_atomically(page, render_page(folder, points, sections, units, drawn))
    return page

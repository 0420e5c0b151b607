"""The figures of trained selections."""

from __future__ import annotations

from collections.abc import Iterator

from neurosurgery.report.draw.canvas import Drawing
from neurosurgery.report.draw.style import Looks
from neurosurgery.report.draw.training import draw_gains, draw_losses, gains_title
from neurosurgery.report.page.missing import Missing
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.read.losses import read_losses
from neurosurgery.report.show.losses import loss_panels
from neurosurgery.report.show.panels import metric_name


def training_figures(folder: Folder, looks: Looks) -> Iterator[Drawing | Missing]:
    """Draw gain against what is kept, and the losses of all trainings."""
    if len(folder.training):
        of_skill = folder.cells["task"].isin(folder.math_tasks)
        yield draw_gains(
            folder.training,
            looks,
            metric_name(folder.cells["metric"][of_skill].iloc[0]),
            folder.skill,
        )
    else:
        yield Missing(
            gains_title(folder.skill),
            "This needs training.csv, which a run writes when it ends, and a baseline to compare "
            "with.",
        )
    losses = read_losses(folder.path, folder.model, folder.flag)
    if len(losses):
        yield draw_losses(loss_panels(losses), looks)

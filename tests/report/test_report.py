"""Which figures and words a folder gives, and the commands that would fill its gaps."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from report_folder import (
    FakeFolder,
    read_csv,
    write_comparison,
    write_consistency,
    write_csv,
    write_factor,
    write_masks,
)
from small_report import (
    figure_of,
    items_of,
    marks,
    marks_in,
    missing,
    names,
    panels,
    small_folder,
    words,
)

from neurosurgery.__main__ import main
from neurosurgery.report import make_report
from neurosurgery.report.cautions import cautions
from neurosurgery.report.commands import consistency_command, repeat_with
from neurosurgery.report.facts import records
from neurosurgery.report.figures.figure import page_svg, pdf_of, png_of, svg_of
from neurosurgery.report.figures.isolation import isolation_rows
from neurosurgery.report.figures.looks import COLOURS, mixed
from neurosurgery.report.figures.marks import _BREAK
from neurosurgery.report.findings import Seen, findings
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.verdicts.judging import word

pytestmark = pytest.mark.whole


def test_every_figure_of_a_full_folder(tmp_path):
    path = FakeFolder(skills=("math", "Race")).write(tmp_path)
    write_masks(path)
    write_consistency(path)
    write_comparison(path)
    page = make_report(path)
    expected = {
        "isolation", "proportion", "number", "where_map", "where_bars", "consistency",
        "isolation_control_Race", "proportion_control_Race", "number_control_Race",
    }  # fmt: skip
    files = {file.name for file in page.parent.iterdir()}
    assert files == {"report.html"} | {f"{n}.{end}" for n in expected for end in ("png", "pdf")}
    before = page.read_bytes()
    assert make_report(path).read_bytes() == before
    # A figure whose data are gone goes with them; other people's files stay.
    (path / "consistency.csv").unlink()
    (path / "report" / "mine.png").write_bytes(b"mine")
    make_report(path)
    assert not (path / "report" / "consistency.png").exists()
    assert (path / "report" / "mine.png").exists()


def test_equal_numbers_give_equal_drawings(tmp_path):
    """Also later in a process, where Vega goes on counting."""
    path = FakeFolder(methods=("mathneuro",), proportions=(0.01,)).write(tmp_path)
    write_masks(path)
    folder = read_folder(path)
    for name in ("isolation", "where_map"):
        first, again = (svg_of(figure_of(folder, name).chart) for _ in range(2))
        assert first == again
    assert png_of(first) == png_of(again)


def test_a_pdf_has_its_fonts_in_it(tmp_path):
    """As TrueType, which every journal takes, and none as drawings of letters."""
    pdf = pdf_of(svg_of(figure_of(small_folder(tmp_path, [(0.2, 0.65, 2.5)]), "number").chart))
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf


def test_the_pages_drawing_is_the_files_with_names_of_its_own(tmp_path):
    """Ids and colours are renamed in tags; a text that looks like one stays as it is."""
    odd = 'clip7 id="x" fill="#0072b2" url(#clip0) d="1.23456"'
    path = FakeFolder(
        methods=("mathneuro",), proportions=(0.01,), tasks={odd: ("acc,none", 0.8, 0)}
    )
    svg = svg_of(figure_of(read_folder(path.write(tmp_path)), "proportion").chart)
    shown = page_svg(svg, "one-")
    assert words(shown) == words(svg)
    assert odd[:10] in "".join(words(svg))
    of_page = set(re.findall(r'<clipPath id="([^"]*)"', shown))
    assert (
        of_page == {f"one-{name}" for name in re.findall(r'<clipPath id="([^"]*)"', svg)} != set()
    )
    assert set(re.findall(r'="url\(#([^)]*)\)"', shown)) == of_page
    assert re.search(r'<path[^>]* stroke="var\(--f-0072b2, #0072b2\)"', shown)
    assert {mark.facts["task"] for mark in marks_in(shown)} == {odd}


@pytest.mark.slow
@pytest.mark.parametrize("scalars", [(0.0,), (0.9, 1.1)])
def test_the_report_calls_the_skill_by_its_name(tmp_path, scalars):
    """Page, facts of the figures and captions; no file is named after it."""
    fake = FakeFolder(skills=("math", "Race"), skill_name="code", scalars=scalars)
    path = fake.write(tmp_path / "named")
    write_consistency(path)
    page = make_report(path).read_text().replace("Math Neurosurgery", "")
    texts = re.split("[<>]", page)
    words = [text for text in texts if re.search(r"\b[Mm]ath\b(?!\.[a-z]+\()", text)]
    assert words == []
    assert "Which parameters carry code" in page
    other = FakeFolder(skills=("math", "Race"), scalars=scalars).write(tmp_path / "other")
    write_consistency(other)
    make_report(other)
    names = [{file.name for file in (one / "report").iterdir()} for one in (path, other)]
    assert names[0] == names[1]


def isolated(folder, skill="math"):
    return isolation_rows(folder.isolation, grid_points(folder), skill, folder.other_tasks)


def test_control_runs_are_on_their_own(tmp_path):
    folder = read_folder(FakeFolder(skills=("math", "Race")).write(tmp_path))
    of_math = isolated(folder)
    assert {row["against"] for row in of_math} == {"Race", "MMLU", ""}
    assert {row["against"] for row in isolated(folder, "Race")} == {"math", ""}
    alone = read_folder(FakeFolder().write(tmp_path / "alone"))
    assert of_math == isolated(alone)


def test_scalars(tmp_path):
    scalars = (0.0, 0.9, 1.05, 1.1)
    path = FakeFolder(methods=("mathneuro",), proportions=(0.001, 0.01), scalars=scalars)
    folder = read_folder(path.write(tmp_path))
    items = items_of(folder)
    assert names(items) == [
        "isolation", "proportion", "scalar_proportion0.001", "scalar_proportion0.01", "number",
    ]  # fmt: skip
    # Two sets, four tasks, three factors: pruning is not among them.
    found = marks(next(item for item in items if getattr(item, "name", "").endswith("0.01")))
    assert len(found) == 2 * 4 * 3
    assert {mark.facts["scalar"] for mark in found} == {"0.9", "1.05", "1.1"}


def test_one_scalar_over_many_proportions_is_shown_by_proportion(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), scalars=(1.1,)).write(tmp_path))
    items = items_of(folder)
    assert names(items) == ["proportion_scalar1.1", "scalar", "number"]
    command = missing(items)["Isolation"].command
    assert command.startswith("python MathNeuro.py --config ")
    assert command.endswith(" --scalar 0")


def test_the_verdict_is_the_filling(tmp_path):
    """Full: worse or better; pale: undecided; hollow: within the margin."""
    folder = small_folder(tmp_path, [(0.2, 0.75, 2.0)])
    table = read_csv(tmp_path / "summary.csv")
    table["verdict"] = ["lower", "within the margin", "undecided"]
    write_csv(table, tmp_path / "summary.csv")
    found = {
        mark.facts["verdict"].partition(" (")[0]: mark.fill
        for mark in marks(figure_of(read_folder(tmp_path), "proportion"))
    }
    full, pale, hollow = (found[name] for name in ("worse", "undecided", "within the margin"))
    assert hollow == "#ffffff"
    assert full == COLOURS[0]
    assert pale == mixed(full, hollow, 0.62)
    legend = words(svg_of(figure_of(read_folder(tmp_path), "proportion").chart))
    assert {"worse or better", "undecided", "within the margin"} <= set(legend)
    # What is within the margin and moved is hollow: small comes before certain.
    table["verdict"] = "lower, within the margin"
    write_csv(table, tmp_path / "summary.csv")
    fills = {mark.fill for mark in marks(figure_of(read_folder(tmp_path), "proportion"))}
    assert fills == {"#ffffff"}
    assert folder.skill == "math"


def test_isolation_is_filled_by_the_other_tasks_alone(tmp_path):
    """One that moved fills the mark, and what the skill does changes nothing."""
    small_folder(tmp_path, [(0.2, 0.75, 2.0)])
    table = read_csv(tmp_path / "summary.csv")
    for of_skill, *of_others, fill in (
        ("lower", "within the margin", "within the margin", "#ffffff"),
        ("within the margin", "within the margin", "lower", COLOURS[0]),
        ("lower", "within the margin", "undecided", mixed(COLOURS[0], "#ffffff", 0.62)),
    ):
        write_csv(table.assign(verdict=[of_skill, *of_others]), tmp_path / "summary.csv")
        for panel in panels(figure_of(read_folder(tmp_path), "isolation")).values():
            assert [row["fill"] for row in panel.marks()] == [fill]


def test_a_ruined_model_does_not_flatten_the_others(tmp_path):
    """A perplexity of thousands beside one of 2 takes a logarithmic axis; accuracies never do."""
    for place, perplexity, scale in (("near", 3.0, "linear"), ("far", 3000.0, "log")):
        folder = small_folder(tmp_path / place, [(0.01, 0.01, perplexity)])
        found = [panel.scale("y") for panel in panels(figure_of(folder, "proportion")).values()]
        assert [each.get("type", "linear") for each in found] == ["linear", "linear", scale]
        low, high = found[2]["domain"]
        assert low < 2 < perplexity < high


@pytest.mark.parametrize("accuracy", [0.74, 0.2])
def test_an_axis_says_where_it_does_not_begin_at_0(tmp_path, accuracy):
    """By two strokes, which are drawn there and nowhere else."""
    strokes = re.compile(r'<path transform="translate\(0,111\)" d="M[^ML]*L[^ML]*M[^ML]*L[^ML]*"')
    folder = small_folder(tmp_path, [(0.1, accuracy, 2.1)])
    figure = figure_of(folder, "proportion")
    broken = []
    for panel in panels(figure).values():
        shapes = [layer["mark"].get("shape") for layer in panel.layers("point")]
        low, high = panel.scale("y")["domain"]
        broken.append(not low <= 0 <= high)
        assert (_BREAK in shapes) == broken[-1]
    assert broken == [False, accuracy == 0.74, True]
    assert len(strokes.findall(svg_of(figure.chart))) == sum(broken)


def test_without_intervals_nothing_looks_like_noise(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), baseline=False).write(tmp_path))
    figure = figure_of(folder, "proportion")
    assert "#ffffff" not in {mark.fill for mark in marks(figure)}
    assert "no intervals" in figure.caption


def test_missing_figures_name_the_command(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), repeats=2).write(tmp_path))
    left_out = missing(items_of(folder))
    again = f"python MathNeuro.py --config {tmp_path}/run.yaml --save_path {tmp_path}"
    assert left_out["Where"].command == f"{again} --save_masks"
    assert left_out["Scale factor"].command == f"{again} --scalar 1.05 1.1"
    assert left_out["Consistency"].command == (f"neurosurgery consistency --save_path {tmp_path}")


def test_a_command_has_what_no_file_may_hold(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",)).write(tmp_path))
    run = folder.config["runs"][0]
    run["settings"] = {"model": "org/m", "other_data": ["a b.csv", "c.csv"], "num_repeats": 4}
    run["flags_alone"] = ["--trust_remote_code", "--include_path", "my tasks"]
    assert repeat_with(folder, "--scalar", "1.1") == (
        f"python MathNeuro.py --config {tmp_path}/run.yaml --trust_remote_code --include_path "
        f"'my tasks' --save_path {tmp_path} --scalar 1.1"
    )
    assert consistency_command(folder) == (
        "neurosurgery consistency --model org/m --skill_data a --other_data 'a b.csv' "
        f"c.csv --trust_remote_code --save_path {tmp_path}"
    ).replace("--skill_data a ", "")


def test_commands_are_the_main_scripts_and_of_math(tmp_path):
    """What would fill a gap in the figures of math is not the last control run, nor LAPE's."""
    folder = read_folder(FakeFolder(methods=("mathneuro",)).write(tmp_path))
    folder.config["runs"] = [
        {"script": "MathNeuro.py", "settings": {"num_repeats": 1}},
        {"script": "MathNeuro.py", "settings": {"skill": "Race"}},
        {"script": "LAPE.py", "settings": {"ratio": [0.1]}},
        {"script": "consistency", "settings": {"num_subsets": 3}},
    ]
    where = f"--config {tmp_path}/run.yaml"
    assert repeat_with(folder, "--save_masks") == (
        f"python MathNeuro.py {where} --skill math --save_path {tmp_path} --save_masks"
    )
    del folder.config["runs"][:2]
    assert repeat_with(folder, "--save_masks") == (
        f"python LAPE.py {where} --save_path {tmp_path} --save_masks"
    )


def test_words(tmp_path):
    path = FakeFolder().write(tmp_path)
    write_comparison(path)
    folder = read_folder(path)
    points = grid_points(folder)
    text = "\n".join(findings(Seen(folder, points)))
    found = pd.Series([word(row) for row in records(points)]).value_counts()
    small = "{}, within the margin"
    counts = [
        f"{found.get(name, 0) + found.get(small.format(name), 0)} {name}"
        for name in ("worse", "better")
        if any(key.startswith(name) for key in found.index)
    ] + [f"{found[name]} {name}" for name in ("within the margin", "undecided")]
    assert f"{len(points)} differences to the baseline" in text
    assert f"{', '.join(counts)}." in text
    both = sum(found.get(small.format(name), 0) for name in ("worse", "better"))
    assert f"Of those worse or better {both} are within the margin, too." in text
    assert cautions(folder, points) == []


def test_the_factor_that_was_really_applied(tmp_path):
    path = FakeFolder(methods=("mathneuro",), proportions=(0.01,), scalars=(1.02,)).write(tmp_path)
    write_factor(path, "fake-model", 1.02, 1.0156, 1.0234)
    folder = read_folder(path)
    assert cautions(folder, grid_points(folder)) == [
        "In the weights' number format the factor 1.02 became 1.0156 to 1.0234."
    ]


def test_command(tmp_path, capsys):
    FakeFolder(methods=("mathneuro",), proportions=(0.01,)).write(tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"report in {tmp_path / 'report' / 'report.html'}\n"
    with pytest.raises(SystemExit) as exit_info:
        main(["report"])
    assert exit_info.value.code == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from neurosurgery.__main__ import main\n"
        "try: main(['report', '--help'])\n"
        "finally: print({'torch', 'altair', 'vl_convert', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("set()")

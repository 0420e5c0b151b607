"""Which figures and words a folder gives, and the commands that would fill its gaps."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.colors import to_hex
from report_folder import (
    FakeFolder,
    read_csv,
    write_comparison,
    write_consistency,
    write_csv,
    write_factor,
    write_masks,
)
from small_report import MATH, drawn, missing, names, small_folder

from neurosurgery.__main__ import main
from neurosurgery.report import make_report
from neurosurgery.report.draw.style import figure_style
from neurosurgery.report.page.figures import draw_all
from neurosurgery.report.page.missing import Missing
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.cautions import cautions
from neurosurgery.report.show.isolation import best, isolation_points
from neurosurgery.report.commands import consistency_command, repeat_with
from neurosurgery.report.findings import findings
from neurosurgery.report.facts import records
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
    for file in page.parent.glob("*.pdf"):
        assert b"/CIDFontType2" in file.read_bytes(), "fonts are embedded as TrueType"
        assert b"/Type3" not in file.read_bytes()
    before = {file: file.read_bytes() for file in page.parent.iterdir()}
    make_report(path)
    assert {file: file.read_bytes() for file in page.parent.iterdir()} == before
    # A figure whose data are gone goes with them; other people's files stay.
    (path / "consistency.csv").unlink()
    (path / "report" / "mine.png").write_bytes(b"mine")
    make_report(path)
    assert not (path / "report" / "consistency.png").exists()
    assert (path / "report" / "mine.png").exists()


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


def test_control_runs_are_on_their_own(tmp_path):
    folder = read_folder(FakeFolder(skills=("math", "Race")).write(tmp_path))
    points = grid_points(folder)
    math_points = isolation_points(folder, points, "math")
    control = isolation_points(folder, points, "Race")
    assert {point.against for point in math_points} == {"Race", "MMLU", ""}
    assert {point.against for point in control} == {"math", ""}
    alone = read_folder(FakeFolder().write(tmp_path / "alone"))
    assert math_points == isolation_points(alone, grid_points(alone), "math")


def test_scalars(tmp_path):
    scalars = (0.0, 0.9, 1.05, 1.1)
    path = FakeFolder(methods=("mathneuro",), proportions=(0.001, 0.01), scalars=scalars)
    folder = read_folder(path.write(tmp_path))
    items = drawn(folder)
    assert names(items) == [
        "isolation", "proportion", "scalar_proportion0.001", "scalar_proportion0.01", "number",
    ]  # fmt: skip
    # Two sets, four tasks, three factors: pruning is not among them.
    facts = next(i for i in items if not isinstance(i, Missing) and "0.01" in i.name).facts
    assert len(facts) == 2 * 4 * 3
    assert {dict(fact)["scalar"] for fact in facts.values()} == {"0.9", "1.05", "1.1"}


def test_one_scalar_over_many_proportions_is_shown_by_proportion(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), scalars=(1.1,)).write(tmp_path))
    items = drawn(folder)
    assert names(items) == ["proportion_scalar1.1", "scalar", "number"]
    command = missing(items)["Isolation"].command
    assert command.startswith("python MathNeuro.py --config ")
    assert command.endswith(" --scalar 0")


def test_significance_is_the_filling(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",)).write(tmp_path))
    points = grid_points(folder)
    with figure_style():
        sections = draw_all(folder, points)
    drawing = next(i for _, items in sections for i in items if i.title.startswith("Proportion"))
    gids = {f"proportion-{line.get_gid()}": line for axes in drawing.figure.axes
            for line in axes.lines if line.get_gid()}  # fmt: skip
    assert set(gids) == set(drawing.facts)
    noise = 0
    for gid, facts in drawing.facts.items():
        hollow = to_hex(gids[gid].get_markerfacecolor()) == "#ffffff"
        assert hollow == (dict(facts)["verdict"] in ("within the margin", "undecided"))
        noise += hollow
    assert 0 < noise < len(gids)


def test_a_ruined_model_does_not_flatten_the_others(tmp_path):
    """A perplexity of thousands beside one of 2 takes a logarithmic axis; accuracies never do."""
    for place, perplexity, scale in (("near", 3.0, "linear"), ("far", 3000.0, "log")):
        folder = small_folder(tmp_path / place, [(0.01, 0.01, perplexity)])
        figure = next(i for i in drawn(folder) if getattr(i, "name", "") == "proportion").figure
        assert [axes.get_yscale() for axes in figure.axes] == ["linear", "linear", scale]
        low, high = figure.axes[2].get_ylim()
        assert low < 2 < perplexity < high


def test_without_intervals_nothing_looks_like_noise(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), baseline=False).write(tmp_path))
    with figure_style():
        ((_, items),) = draw_all(folder, grid_points(folder))
    drawing = next(item for item in items if item.title.startswith("Proportion"))
    faces = {
        to_hex(line.get_markerfacecolor())
        for axes in drawing.figure.axes
        for line in axes.lines
        if line.get_gid()
    }
    assert "#ffffff" not in faces
    assert "no intervals" in drawing.caption


def test_missing_figures_name_the_command(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), repeats=2).write(tmp_path))
    left_out = missing(drawn(folder))
    again = f"python MathNeuro.py --config {tmp_path}/run.yaml --save_path {tmp_path}"
    assert left_out["Where"].command == f"{again} --save_masks"
    assert left_out["Scale factor"].command == f"{again} --scalar 1.05 1.1"
    assert left_out["Consistency"].command == (
        f"python -m neurosurgery consistency --save_path {tmp_path}"
    )


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
        "python -m neurosurgery consistency --model org/m --skill_data a --other_data 'a b.csv' "
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
    text = "\n".join(findings(folder, points))
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
    assert "is, from the least: MathNeuro 0.020 [0.010, 0.030]; Wanda 0.320 [0.310, 0.330]." in text
    assert "Paired by documents, MathNeuro loses less than Wanda (−0.300 [−0.400, −0.200])." in text
    assert "pairs of methods" not in text, "the one pair is decided"
    chosen = best(isolation_points(folder, points, "math"))["mathneuro", "MMLU"]
    sentence = next(line for line in text.splitlines() if line.startswith("MathNeuro (MMLU)"))
    assert f"proportion {chosen.size:g}: pruning {chosen.edited:,.0f} weights" in sentence
    assert f"{MATH} from 0.860 to " in sentence
    assert sentence.count("nats per word") == 1, "the perplexity's difference"
    assert cautions(folder, points) == []


def test_pairs_that_are_undecided_are_counted(tmp_path):
    path = FakeFolder().write(tmp_path)
    write_comparison(path)
    table = read_csv(path / "comparison.csv")
    pair = (table["other"] == "wanda") & table["quantity"].str.startswith("loss")
    table.loc[pair, ["low", "high", "p_value", "verdict"]] = [-0.7, 0.1, 0.14, "undecided"]
    write_csv(table, path / "comparison.csv")
    folder = read_folder(path)
    text = " ".join(findings(folder, grid_points(folder)))
    assert "Undecided: 1 of 1 pairs of methods." in text
    assert "Paired by documents" not in text


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
        "finally: print([m for m in ('torch', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")

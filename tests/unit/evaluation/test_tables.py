import csv
import io

import pytest

from echotrain.evaluation.statistics import group_statistics
from echotrain.evaluation.tables import Section, Table, quality_numbers, quality_table, volume_table


def test_the_quality_table_shows_mean_spread_and_paired_gain(evaluation):
    table = quality_table(evaluation, group_statistics(evaluation))
    brain = next(row for section in table.sections for row in section.rows if row[0] == "brain")
    assert brain[:5] == ("brain", "2", "30.50 ± 0.71", "36.00 ± 0.00", "+5.50\n[+5.00, +6.00]")
    assert [section.title for section in table.sections] == ["", "Anatomy", "Contrast"]
    assert all(len(row) == len(table.columns) for section in table.sections for row in section.rows)


def test_one_volume_is_shown_without_a_spread(volume_result, evaluation_of):
    evaluation = evaluation_of([volume_result("a", 30, -2)])
    (row,) = quality_table(evaluation, group_statistics(evaluation)[:1]).sections[0].rows
    assert row[:5] == ("All volumes", "1", "30.00", "28.00", "−2.00")


def test_the_numbers_keep_full_precision_through_csv(evaluation):
    groups = group_statistics(evaluation)
    rows = list(csv.DictReader(io.StringIO(quality_numbers([(evaluation, groups)]).to_csv())))
    assert len(rows) == len(groups) * 9
    row = next(r for r in rows if (r["group"], r["metric"], r["side"]) == ("knee", "ssim", "model"))
    knee = next(g for g in groups if g.name == "knee")
    assert (float(row["mean"]), float(row["ci95_low"]), int(row["n"])) == (knee.of["model"]["ssim"].mean, knee.of["model"]["ssim"].low, 6)
    assert row["evaluation"] == "VarNet x4"


def test_the_volume_table_begins_with_the_worst(evaluation):
    rows = volume_table(evaluation).sections[0].rows
    assert [row[1] for row in rows[:2]] == ["knee0", "knee1"]
    psnr = [float(row[7]) for row in rows]
    assert psnr == sorted(psnr)


def test_markdown_aligns_numbers_and_keeps_cells_apart():
    table = Table(columns=("Group\nof", "n"), sections=(Section(rows=(("a|b", "1\n[0, 2]"),)), Section(title="More", rows=(("c", "2"),))))
    assert table.to_markdown().splitlines() == [
        "| Group of | n |",
        "| --- | ---: |",
        "| a\\|b | 1 [0, 2] |",
        "| *More* |  |",
        "| c | 2 |",
    ]


def test_latex_is_a_booktabs_table_in_which_nothing_is_taken_for_a_command():
    table = Table(
        columns=("T2_FS & more", "PSNR\n(dB)"),
        sections=(Section(rows=(("50%", "1.00 ± 0.10"),)), Section(title="A^B", rows=(("\\x", "−1"),))),
    )
    assert table.to_latex().splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"T2\_FS \& more & PSNR (dB) \\",
        r"\midrule",
        r"50\% & 1.00 $\pm$ 0.10 \\",
        r"\multicolumn{2}{l}{\emph{A\textasciicircum{}B}} \\",
        r"\textbackslash{}x & $-$1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize("name", ["a,b", 'q"q', "-3.2"])
def test_csv_quotes_what_needs_it(name):
    table = Table(columns=("Group",), sections=(Section(rows=((name,),)),))
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [["Group"], [name]]


def test_csv_has_no_formula_of_a_strangers():
    table = Table(columns=("Group", "=x\n1"), sections=(Section(rows=(("=1+1", "+0.34\n[+0.10, +0.58]"),)),), num_labels=1)
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [["Group", "'=x 1"], ["'=1+1", "+0.34\n[+0.10, +0.58]"]]

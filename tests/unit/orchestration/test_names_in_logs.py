"""What prepare and reconstruct print: paths to a person at a terminal, pseudonyms to a log, and no name that breaks either."""

import dataclasses
import io
import sys

import pytest
from rich.console import Console

from echotrain.data.catalog.rows import Catalog, SliceRow
from echotrain.data.preparing.assemble import LeftOut
from echotrain.orchestration.jobs.prepare import PrepareReport
from echotrain.orchestration.jobs.reconstruct import Reconstruction
from ray_jobs import prepare, reconstruct

HOSTILE = "/scans/Jane_Doe/[/x]\n12 scans found\x1b[2J[bold]knee[/bold].h5"
ROW = SliceRow(
    dataset="d", volume="v", slice=0, num_slices=1, patient="p", split="train", anatomy="[/x]", contrast="T1\x1b[0m", coils=1, height=1,
    width=1, recon_height=1, recon_width=1, padding_right=1, kind="packed", uri="u", offset=0, nbytes=8,
)  # fmt: skip


class Screen(io.StringIO):
    """A stream that is a terminal, or is none."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def report_of(name: str) -> PrepareReport:
    return PrepareReport(
        catalog=Catalog(Catalog.from_rows([ROW]).table, f"/to/{name}", 1, {}),
        is_new=True,
        num_scans=2,
        num_resumed=0,
        scans=[{"volume": name, "slices": 1, "findings": [f"found {name}"]}],
        left_out=[LeftOut(source="source-1", name="unreadable-1", slices=None, reason=f"because of {name}")],
        paths={"source-1": name},
        notes=(f"a note of {name}",),
    )


@pytest.mark.parametrize("is_terminal", [True, False])
def test_prepare_shows_paths_to_a_person_alone_and_no_name_breaks_its_tables(monkeypatch, is_terminal):
    monkeypatch.setattr(prepare, "console", Console(file=Screen(is_terminal=is_terminal), width=400, color_system=None))
    shown = prepare._described(report_of(HOSTILE))
    assert "\x1b" not in shown
    assert "[/x]\\n12 scans found\\x1b[2J[bold]knee[/bold].h5" in shown
    assert not any(line.startswith("12 scans") for line in shown.splitlines())
    table = next(line for line in shown.splitlines() if "because of" in line)
    assert ("unreadable-1" in table) == (not is_terminal)
    assert table.startswith("│ /scans/Jane_Doe") == is_terminal


def test_scans_that_name_no_patient_are_counted_as_scans(monkeypatch):
    monkeypatch.setattr(prepare, "console", Console(file=Screen(is_terminal=False), width=400, color_system=None))
    rows = [dataclasses.replace(ROW, volume=f"v{index // 2}", slice=index % 2, patient="unnamed-1") for index in range(6)]
    report = dataclasses.replace(report_of("a"), catalog=Catalog(Catalog.from_rows(rows).table, "/to", 1, {}))
    assert "3 scans name no patient" in prepare._described(report)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_reconstruct_shows_paths_to_a_person_alone(monkeypatch, is_terminal):
    results = [
        Reconstruction(source=HOSTILE, name="unreadable-1", error="no scan"),
        Reconstruction(source=HOSTILE, name="volume-1", output="/to/volume-1.h5", num_slices=3, acceleration=4.0),
    ]
    monkeypatch.setattr(reconstruct, "reconstruct", lambda *_, **__: iter(results))
    out, err = Screen(is_terminal=is_terminal), Screen(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert reconstruct.main(["run", "scans", "--to", "to"]) == reconstruct.SOME_FAILED
    for stream, name in ((out, "volume-1 ->"), (err, "unreadable-1: no scan")):
        (line,) = stream.getvalue().splitlines()
        assert "\x1b" not in line
        assert ("Jane_Doe" in line) == is_terminal
        assert (name in line) == (not is_terminal)


def test_a_pattern_that_is_none_is_an_error_of_the_command_line(capsys, tmp_path):
    assert prepare.main([str(tmp_path), "--to", str(tmp_path / "to"), "--safe-names", "*"]) == 2
    assert reconstruct.main(["run", "scans", "--to", "to", "--safe-names", "("]) == 2
    assert capsys.readouterr().err.count("is no regular expression") == 2

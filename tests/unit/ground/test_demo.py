import pytest

from ray_jobs import demo


@pytest.mark.parametrize(("data", "message"), [("nowhere", "does not exist"), ("build/demo/scans", "empties first")])
def test_scans_that_are_missing_or_would_be_removed_are_refused_and_nothing_is_lost(tmp_path, monkeypatch, capsys, data, message):
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "build/demo/scans/mine.h5"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"scan")
    assert demo.main(["--data", data]) == 2
    assert message in capsys.readouterr().err
    assert kept.exists()

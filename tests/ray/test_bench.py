"""The benchmarks that need a cluster: they run, on a user's own catalog too, and end in one JSON line."""

import json

import pytest

from ray_jobs import bench

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def result_of(capsys, *arguments):
    assert bench.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) >= {"name", "ours", "baseline", "unit", "ratio", "detail"}
    assert result["ratio"] == pytest.approx(result["ours"] / result["baseline"])
    return result


def test_the_stream_of_an_own_catalog_is_held_against_bare_reads(catalog_uri, capsys):
    result = result_of(capsys, "stream", f"catalog={catalog_uri}")
    assert result["name"] == "stream"
    assert result["ours"] > 0
    assert 0 <= result["detail"]["data_wait_share"] <= 1
    assert result["detail"]["requests_per_turn"] > 0
    assert result["detail"]["gigabytes_per_turn"] > 0


def test_a_setting_that_leaves_nothing_to_resume_from_is_refused(capsys):
    assert bench.main(["resume", "--quick", "checkpoint_every=0"]) == 2
    assert "checkpoint_every=0: must be at least 1" in capsys.readouterr().err


def test_the_stream_is_held_against_the_network_boto3_and_a_dataloader(tmp_path, capsys):
    pytest.importorskip("fastmri", reason="the public implementation is not installed")
    detail = result_of(capsys, "stream", "--quick", "loader_processes=2", f"folder={tmp_path}")["detail"]
    for place in ("throttled", "loopback", "local", "tls"):
        assert detail[f"{place}_ratio"] == pytest.approx(detail[f"{place}_stream_mb_s"] / detail[f"{place}_loader_mb_s"])
    assert detail["tls_stream_ratio_to_boto3"] > 0
    assert min(detail[name] for name in detail if name.endswith("cpu_s_per_gb")) > 0
    assert "1 persistent processes per rank" in detail["loader_settings"]
    assert detail["lines_r4_is_bit_exact"]
    assert detail["hdf5_index_slices_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_preparing_is_held_against_a_bare_read_of_the_same_files(tmp_path, capsys):
    result = result_of(capsys, "prepare", "--quick", "repeats=1", f"folder={tmp_path}")
    assert result["unit"] == "MB/s per core"
    assert set(result["detail"]["cpu_mb_s"]) == {"bare", "packed", "index_only"}
    assert min(result["detail"]["cpu_mb_s"].values()) > 0
    assert result["detail"]["place"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_is_held_against_the_bare_network(capsys):
    result = result_of(capsys, "evaluate", "--quick", "volumes=2")
    assert result["unit"] == "slices/s"
    assert len(result["detail"]["forward_s_per_slice"]) == 2
    assert result["ratio"] > 0


@pytest.mark.parametrize("arguments", [("prepare", "scans=0"), ("prepare", "repeats=0"), ("evaluate", "volumes=1")])
def test_a_setting_that_leaves_nothing_to_measure_is_refused(capsys, arguments):
    assert bench.main([*arguments, "--quick"]) == 2
    assert f"{arguments[1]}: must be at least" in capsys.readouterr().err

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


def test_a_setting_that_leaves_nothing_to_resume_from_is_refused(capsys):
    assert bench.main(["resume", "--quick", "checkpoint_every=0"]) == 2
    assert "checkpoint_every=0: must be at least 1" in capsys.readouterr().err

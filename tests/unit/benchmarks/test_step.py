"""The step benchmark runs in seconds when asked to be quick, and its two sides agree."""

import json

import pytest

from echotrain.benchmarks.step import run

pytest.importorskip("fastmri", reason="the public implementation is not installed")


def test_a_quick_run_times_both_sides_and_finds_equal_outputs():
    result = json.loads(run(quick=True, repeats=1, threads=1).to_json())
    assert result["name"] == "step"
    assert result["ratio"] == pytest.approx(result["ours"] / result["baseline"])
    differences = result["detail"]["output_difference"]
    assert all(difference < 1e-5 for difference in differences.values()), differences
    assert set(result["detail"]["memory_ratio"]) == {"echotrain", "echotrain_checkpointing"}
    assert all(megabytes > 0 for megabytes in result["detail"]["peak_mb"].values())

"""The benchmark of one's own loop: both sides give samples of one size, and the ratio is that of their rates."""

import pytest

from echotrain.benchmarks import own_loop

pytest.importorskip("fastmri", reason="the public implementation is not installed")
# The processes are forked, as PyTorch does it on Linux; that this process has threads is what the warning is about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def test_both_sides_give_the_same_samples_at_rates_that_are_compared(tmp_path):
    result = own_loop.run(quick=True, turns=1, loader_processes=1, folder=str(tmp_path))
    detail = result.detail
    assert result.ratio == pytest.approx(result.ours / result.baseline)
    assert result.ours == detail["samples_s"]["echotrain_s3"]
    assert result.baseline == detail["samples_s"]["fastmri_files"]
    assert len(set(detail["mb_per_sample"].values())) == 1
    assert min(detail["cpu_ms_per_sample"].values()) > 0
    assert list(tmp_path.iterdir()) == []

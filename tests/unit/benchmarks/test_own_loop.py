"""The benchmark of one's own loop: both sides give the same samples, and the ratio is that of their rates."""

import contextlib

import numpy as np
import pytest

from echotrain.benchmarks import own_loop
from echotrain.benchmarks.stream_data import SMALL, write_stream_data
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.torch_dataset import CatalogDataset, CatalogLoader

pytest.importorskip("fastmri", reason="the public implementation is not installed")
# The processes are forked, as PyTorch does it on Linux; that this process has threads is what the warning is about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def test_both_sides_give_the_same_samples_but_for_the_lines_that_each_draws(tmp_path):
    data = write_stream_data(tmp_path, 0.0, SMALL)
    with own_loop._fastmri(data, 1) as loader:
        public = {(batch.fname[0], int(batch.slice_num)): batch for batch in loader.epoch()}
    dataset = CatalogDataset(LinesData(catalog=str(data.bucket / data.packed), mask=own_loop._MASK))
    seen = set()
    with contextlib.closing(dataset):
        for ours in CatalogLoader(dataset):
            # Our catalog has each slice as often as an epoch of theirs reads it.
            name = ours.fname[0], int(ours.slice_num) % (data.num_slices // 2)
            theirs = public[name]
            seen.add(name)
            assert set(ours._fields) == {*theirs._fields, "weight"}
            np.testing.assert_array_equal(ours.target, theirs.target)
            masks = [side.mask.numpy()[..., 0].astype(bool) for side in (ours, theirs)]
            assert masks[0].shape == masks[1].shape
            assert int(ours.num_low_frequencies) == int(theirs.num_low_frequencies)
            both = masks[0] & masks[1]
            assert both.sum() >= int(ours.num_low_frequencies) > 0
            one, other = (side.masked_kspace.numpy() for side in (ours, theirs))
            np.testing.assert_array_equal(one * both[..., None], other * both[..., None])
            for kspace, mask in zip((one, other), masks, strict=True):
                assert abs(mask.sum() - mask.size / 4) < mask.size / 8
                assert kspace.any()
                assert not kspace[np.broadcast_to(~mask[..., None], kspace.shape)].any()
    assert seen == set(public)


def test_both_sides_give_samples_of_one_size_at_rates_that_are_compared(tmp_path):
    result = own_loop.run(quick=True, turns=1, loader_processes=1, folder=str(tmp_path))
    detail = result.detail
    assert result.ratio == pytest.approx(result.ours / result.baseline)
    assert result.ours == detail["samples_s"]["echotrain_s3"]
    assert result.baseline == detail["samples_s"]["fastmri_files"]
    assert len(set(detail["mb_per_sample"].values())) == 1
    assert min(detail["cpu_ms_per_sample"].values()) > 0
    assert list(tmp_path.iterdir()) == []

"""What was drawn for a slice before samples had frames is drawn for it now: else a run that goes on would be another run.

The numbers were written down by the version before.
"""

import numpy as np
import pytest

from echotrain.data.catalog.identity import SampleId
from echotrain.data.plan.order import epoch_order
from echotrain.physics.masks import MaskConfig, line_mask

KNEE, BRAIN = SampleId("mosaic", "file10000001", 0), SampleId("fastmri", "file1000277", 17)


@pytest.mark.parametrize(
    ("sample", "seed", "epoch", "root"),
    [
        (KNEE, 7, 3, 8167049801020082774),
        (KNEE, 7, None, 6272474998639475610),
        (KNEE, 0, 0, 8390163432349644214),
        (BRAIN, 7, 3, 6974764917019702697),
        (BRAIN, 7, None, 185585431802796560),
        (BRAIN, 0, 0, 4080901292231518444),
    ],
)
def test_the_root_of_a_slice_is_what_it_was(sample, seed, epoch, root):
    assert sample.root(seed, epoch) == root


@pytest.mark.parametrize(
    ("kind", "epoch", "lines"),
    [
        ("random", 3, [8, 30, 31, 42, 46, 57]),
        ("random", None, [11, 30, 31, 49]),
        ("equispaced", 3, [3, 11, 19, 27, 30, 31, 35, 43, 51]),
        ("equispaced", None, [3, 11, 19, 27, 30, 31, 35, 43, 51]),
    ],
)
def test_the_mask_of_a_slice_is_what_it_was(kind, epoch, lines):
    config = MaskConfig(kind=kind, accelerations=(4, 8), center_fractions=(0.08, 0.04))
    where = {"dataset": "mosaic", "volume": "file10000001", "padding_left": 2, "padding_right": 58}
    sampling = line_mask(config, 61, seed=7, epoch=epoch, slice=None if epoch is None else 5, **where)
    assert np.flatnonzero(sampling.mask).tolist() == lines
    assert sampling.num_low_frequencies == 2


def test_the_order_of_an_epoch_is_what_it_was():
    assert epoch_order(11, 7, 3).tolist() == [3, 2, 10, 9, 1, 8, 7, 5, 0, 4, 6]
    assert epoch_order(5, 7, 3, np.array([1.0, 2, 3, 0, 4])).tolist() == [2, 2, 4, 1, 4]


def test_frames_of_a_slice_are_samples_of_their_own():
    frames = [KNEE._replace(frame=frame) for frame in (None, 0, 1)]
    roots = {sample.root(7, epoch) for sample in (*frames, KNEE._replace(slice=1)) for epoch in (None, 0, 1)}
    assert len(roots) == 12
    assert [str(sample) for sample in frames] == ["mosaic/file10000001[0]", "mosaic/file10000001[0][0]", "mosaic/file10000001[0][1]"]

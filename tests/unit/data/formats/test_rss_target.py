"""The target of a slice is the centre of its image, whatever is odd or longer than the other side."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.formats.target import rss_target
from echotrain.physics.fft import fft2c


@given(st.integers(1, 3), st.integers(1, 21), st.integers(1, 21), st.data())
def test_a_target_is_the_centre_of_the_combined_image(coils, height, width, data):
    shape = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    rng = np.random.default_rng(height * 100 + width)
    images = (rng.normal(size=(coils, height, width)) + 1j * rng.normal(size=(coils, height, width))).astype(np.complex64)
    target = rss_target(fft2c(torch.from_numpy(images)).numpy(), shape)
    assert (target.dtype, target.shape, target.flags["C_CONTIGUOUS"]) == (np.float32, shape, True)
    # As many pixels are cut off on either side, and the odd one at the end.
    before = [(whole - part) // 2 for whole, part in zip((height, width), shape, strict=True)]
    after = [whole - part - cut for whole, part, cut in zip((height, width), shape, before, strict=True)]
    assert all(0 <= last - first <= 1 for first, last in zip(before, after, strict=True))
    whole = np.sqrt((np.abs(images) ** 2).sum(axis=0))
    np.testing.assert_allclose(target, whole[before[0] : height - after[0], before[1] : width - after[1]], rtol=1e-4, atol=1e-5)

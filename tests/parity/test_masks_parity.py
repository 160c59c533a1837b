import numpy as np
import pytest
import torch

from echotrain.physics.masks import MaskConfig, count_low_frequencies, line_mask

subsample = pytest.importorskip("fastmri.data.subsample", reason="the public fastMRI package is not installed")


@pytest.mark.parametrize("kind", ["random", "equispaced", "equispaced_fraction", "magic", "magic_fraction"])
@pytest.mark.parametrize(("accelerations", "fractions"), [((4,), (0.08,)), ((8,), (0.04,)), ((4, 8), (0.08, 0.04)), ((6, 3), (0.05, 0.1))])
@pytest.mark.parametrize("width", [190, 255, 320, 368, 372, 401])
def test_every_kind_equals_the_public_mask_of_the_same_file(kind, accelerations, fractions, width):
    config = MaskConfig(kind=kind, accelerations=accelerations, center_fractions=fractions, seeding="fastmri")
    public = subsample.create_mask_for_mask_type(kind, fractions, accelerations)
    for name in ("file1000001.h5", "file_brain_AXT2_200_2000003.h5", "b.h5"):
        expected, num_low = public((1, 1, 8, width, 2), seed=tuple(map(ord, name)))
        sampling = line_mask(config, width, seed=0, dataset="", volume=name, epoch=None)
        np.testing.assert_array_equal(sampling.mask, expected.numpy().ravel() > 0)
        assert sampling.num_low_frequencies == num_low


def test_free_combinations_draw_as_the_public_code_does():
    public = subsample.EquispacedMaskFractionFunc((0.08, 0.04), (4, 8), allow_any_combination=True)
    config = MaskConfig(
        kind="equispaced_fraction", accelerations=(4, 8), center_fractions=(0.08, 0.04), allow_any_combination=True, seeding="fastmri"
    )
    for name in (f"file{number}.h5" for number in range(20)):
        expected, num_low = public((1, 1, 8, 368, 2), seed=tuple(map(ord, name)))
        sampling = line_mask(config, 368, seed=0, dataset="", volume=name, epoch=None)
        np.testing.assert_array_equal(sampling.mask, expected.numpy().ravel() > 0)
        assert sampling.num_low_frequencies == num_low


def test_the_centre_of_a_given_mask_is_counted_as_the_public_varnet_does():
    varnet = pytest.importorskip("fastmri.models.varnet", reason="the public fastMRI package is not whole")
    model = varnet.SensitivityModel(chans=1, num_pools=1)
    for epoch in range(20):
        mask = line_mask(MaskConfig(), 368, seed=0, dataset="", volume="a", epoch=epoch).mask
        _, expected = model.get_pad_and_num_low_freqs(torch.from_numpy(mask).reshape(1, 1, 1, -1, 1))
        assert count_low_frequencies(mask) == int(expected[0])

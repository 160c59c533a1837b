"""The simulator: honest, repeatable, and hard enough to be worth learning from."""

import numpy as np
import pytest
import torch

from echotrain.data.formats import open_volume
from echotrain.data.formats.target import rss_target
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.errors import ConfigError, ScanError
from echotrain.physics.coils import rss
from echotrain.physics.fft import ifft2c
from tests.scans import curate

SMALL = SimulationConfig(num_patients=3, num_slices=3, matrix=96)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return simulate(SMALL, tmp_path_factory.mktemp("scans"))


def test_every_file_says_that_it_is_simulated(scans):
    assert len(scans) == 6
    for path in scans:
        with open_volume(path) as volume:
            header = volume.header
            assert (header.dataset, header.vendor) == ("simulated", "simulated")
            assert header.acquisition.startswith("SIM_")
            assert header.volume == path.stem
            assert curate(volume) == []
            assert volume.raw_slice_range(0) is not None


def test_anatomies_differ_in_matrix_coils_field_of_view_and_contrast(scans):
    headers = []
    for path in scans:
        with open_volume(path) as volume:
            headers.append(volume.header)
    assert {header.anatomy for header in headers} == {"brain", "knee", "spine"}
    for field in ("num_coils", "width", "fov_mm", "orientation"):
        assert len({getattr(header, field) for header in headers}) == 3
    assert len({header.patient for header in headers}) == SMALL.num_patients
    assert len({(header.anatomy, header.contrast) for header in headers}) == 6


def test_the_same_seed_writes_the_same_bytes_and_another_one_does_not(scans, tmp_path):
    again = simulate(SMALL, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in scans]
    other = simulate(SimulationConfig(seed=1, num_patients=1, volumes_per_patient=1, num_slices=3, matrix=96), tmp_path / "other")
    assert other[0].read_bytes() != scans[0].read_bytes()


def test_targets_are_the_rss_of_the_kspace_and_max_and_norm_their_own(scans):
    with open_volume(scans[0]) as volume:
        targets = np.stack([volume.read_target(index) for index in range(3)])
        np.testing.assert_allclose(targets[1], rss_target(volume.read_slice(1), targets.shape[1:]), rtol=1e-5)
        assert volume.header.max_value == pytest.approx(float(targets.max()))
        assert volume.header.norm == pytest.approx(float(np.linalg.norm(targets)), rel=1e-5)


def test_one_patient_is_the_same_person_under_two_contrasts(scans):
    with open_volume(scans[0]) as first, open_volume(scans[1]) as second:
        assert first.header.patient == second.header.patient
        assert first.header.contrast != second.header.contrast
        outlines = [volume.read_target(1) > 0.15 * volume.header.max_value for volume in (first, second)]
    assert (outlines[0] == outlines[1]).mean() > 0.8


def test_undersampling_hurts_and_the_coils_know_how_to_undo_it(scans):
    for path in scans[::2]:
        with open_volume(path) as volume:
            kspace, target = torch.from_numpy(volume.read_slice(1)), volume.read_target(1)
        width = kspace.shape[-1]
        mask = (torch.arange(width) % 4 == 0) | ((torch.arange(width) - width // 2).abs() < width * 0.04)
        zero_filled = rss(ifft2c(kspace * mask)[None])[0].numpy()
        psnr = 10 * np.log10(target.max() ** 2 / ((zero_filled - target) ** 2).mean())
        assert 15 < psnr < 30
        # Coils see different parts: the second principal component of the coil images is not negligible.
        values = torch.linalg.svdvals(ifft2c(kspace).flatten(1))
        assert values[1] > 0.2 * values[0]
        assert values[0] > 1.5 * values[-1]


def test_noise_free_coil_maps_are_smooth():
    from echotrain.data.simulation.coils import loop_sensitivities

    maps = loop_sensitivities((64, 64), (200, 200), 0.0, num_coils=6, arc=2 * np.pi, rng=np.random.default_rng(0))
    steps = np.abs(np.diff(maps, axis=-1)).max()
    assert steps < 0.15 * np.abs(maps).max()


def test_partial_fourier_is_stated_in_the_header(tmp_path):
    config = SimulationConfig(num_patients=1, volumes_per_patient=1, num_slices=1, matrix=64, partial_fourier=0.75)
    with open_volume(simulate(config, tmp_path)[0]) as volume:
        assert (volume.header.padding_left, volume.header.padding_right) == (16, 64)
        assert not volume.read_slice(0)[..., :16].any()
        assert curate(volume) == []


def test_a_real_head_is_scanned_where_a_file_is_given(scanner_data, tmp_path):
    head = scanner_data / "volumes" / "colin27_ch2_1mm.nii.gz"
    config = SimulationConfig(num_patients=2, volumes_per_patient=1, num_slices=2, matrix=96, anatomies=("brain",), head=str(head))
    patients = set()
    for path in simulate(config, tmp_path):
        with open_volume(path) as volume:
            patients.add(volume.header.patient)
            target = volume.read_target(0)
            assert target[48, 48] > 5 * np.median(target[:8, :8])
    assert len(patients) == 1, "one head is one patient, however often it is scanned"


def test_bad_settings_and_heads_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="liver"):
        SimulationConfig(anatomies=("liver",))
    with pytest.raises(ConfigError, match="matrix=8"):
        SimulationConfig(matrix=8)
    bad = tmp_path / "head.nii"
    bad.write_bytes(b"not a volume")
    with pytest.raises(ScanError, match=r"head\.nii"):
        simulate(SimulationConfig(num_patients=1, head=str(bad)), tmp_path)

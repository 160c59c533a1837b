"""Readouts that run to and fro."""

import numpy as np
import pytest

from echotrain.data.formats import open_volume
from echotrain.data.formats.checks.direction import alternates
from echotrain.data.formats.checks.energy import acquired, energy_of
from echotrain.errors import ScanError
from tests.scans import object_kspace, random_kspace, write_scan


def judged(kspace: np.ndarray) -> bool:
    return alternates(kspace, acquired(energy_of(kspace)), kspace.shape[-1] // 2)


@pytest.mark.parametrize("shape", [(1, 4, 64, 48), (1, 7, 33, 91), (1, 1, 96, 60), (1, 1, 65, 47)])
@pytest.mark.parametrize(("shots", "offset"), [(1, 0), (1, 1), (2, 0), (3, 2), (4, 1)])
def test_lines_that_are_turned_over_in_turn_are_told(shape, shots, offset):
    kspace = object_kspace(shape)[0]
    assert not judged(kspace)
    backwards = ((np.arange(shape[3]) + offset) // shots) % 2 == 0
    kspace[..., backwards] = kspace[:, ::-1, backwards]
    assert judged(kspace)


def test_lines_that_are_turned_over_are_told_of_an_undersampled_scan_too():
    lines = np.arange(96) % 2 == 0
    kspace = object_kspace((1, 4, 64, 96))[0] * lines
    assert not judged(kspace)
    kspace[..., ::4] = kspace[:, ::-1, ::4].copy()
    assert judged(kspace)


def test_noise_and_k_space_of_few_lines_are_not_judged():
    assert not judged(random_kspace((4, 64, 48)))
    kspace = object_kspace((1, 4, 64, 48))[0]
    kspace[..., 1::2] = kspace[:, ::-1, 1::2].copy()
    kspace[..., 30:], kspace[..., :20] = 0, 0
    assert not judged(kspace)


def test_a_scan_whose_lines_run_to_and_fro_is_refused_as_what_it_is(tmp_path):
    kspace = object_kspace((3, 4, 64, 48))
    kspace[..., 1::2] = kspace[:, :, ::-1, 1::2].copy()
    with pytest.raises(ScanError, match=r"a\.h5: every second line runs backwards.*ghost"):
        open_volume(write_scan(tmp_path / "a.h5", kspace, target=None))


def test_real_scans_run_one_way_and_a_real_echo_planar_scan_to_and_fro(scanner_data):
    pytest.importorskip("twixtools")
    for path in [*scanner_data.glob("*.h5"), *(scanner_data / "siemens").glob("*gre*.dat")]:
        with open_volume(path) as volume:
            kspace = np.array(volume.read_slice(0))
        assert not judged(kspace)
        kspace[..., 1::2] = kspace[:, ::-1, 1::2].copy()
        # One is a disc in the middle under two coils beside it: turned over, it looks much the same.
        assert judged(kspace) != path.name.startswith("skyra")
    with pytest.raises(ScanError, match="ghost"):
        open_volume(scanner_data / "siemens" / "pulseq_epi_ramp_96x96_1ch.dat")

"""How a scan file is reconstructed, worker and all, without Ray: which lines count, what is told, how the output lies."""

import h5py
import numpy as np
import pytest
import torch

from echotrain.data.formats import Deidentifier, open_volume
from echotrain.data.formats.sources import find_sources
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.jobs.inference import InferenceConfig, WorkerSetup
from echotrain.orchestration.jobs.reconstruct import _check_place, _VolumeReconstructor, acquired_of
from echotrain.physics.masks import MaskConfig
from echotrain.training.trained import TrainedModel
from tests.runs import write_run
from tests.scans import header_xml, lines_of, object_kspace, write_ismrmrd, write_scan
from tests.simulated import write_simulated_catalog

SHAPE = (3, 4, 64, 48)
TINY = VarNetConfig(num_cascades=2, chans=4, pools=2, sens_chans=3, sens_pools=2)
CENTER = abs(np.arange(48) - 24 + 0.5) < 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the URI of a run whose only checkpoint is a network as it was initialised."""
    return write_run(tmp_path_factory.mktemp("run"), TINY)


@pytest.fixture
def reconstruct(run, tmp_path):
    """Return a function that reconstructs a file and returns what became of it, and the images."""

    def once(path, *, undersample=False, run=run, deidentifier=None):
        config = InferenceConfig(run=run)
        folder = tmp_path / f"out-{path.stem}"
        worker = _VolumeReconstructor(
            WorkerSetup(method=config), config, str(folder), undersample, frozenset(), deidentifier or Deidentifier("x")
        )
        (source,) = find_sources(str(path))
        done = worker({"uri": source.uri, "size": source.size, "version": source.version, "suffix": ""}).values
        if done["error"]:
            return done, None
        with h5py.File(next(folder.glob("*.h5"))) as file:
            return done, file["reconstruction"][:]

    return once


def test_every_slice_is_reconstructed_from_its_own_lines(reconstruct, tmp_path):
    kspace = object_kspace(SHAPE)
    masks = np.stack([(np.arange(48) % 4 == offset) | CENTER for offset in range(3)])
    whole = write_scan(tmp_path / "whole.h5", kspace * masks[:, None, None], target=None)
    done, images = reconstruct(whole)
    assert done["acceleration"] == pytest.approx(48 / masks.sum(axis=1).mean(), rel=0.02)
    for index in range(3):
        alone = write_scan(tmp_path / f"slice{index}.h5", (kspace * masks[:, None, None])[index : index + 1], target=None)
        np.testing.assert_allclose(images[index], reconstruct(alone)[1][0], rtol=1e-5, atol=1e-6)
    with h5py.File(whole, "a") as file:
        file["mask"] = masks
    np.testing.assert_array_equal(reconstruct(whole)[1], images)


def test_every_frame_is_reconstructed_from_its_own_lines_and_frames_come_first_as_challenges_want_them(reconstruct, tmp_path):
    kspace = object_kspace((6, 3, 64, 48)).reshape(2, 3, 3, 64, 48)
    masks = [(np.arange(48) % 4 == offset) | CENTER for offset in range(3)]
    readouts = [
        (samples, {**values, "phase": frame})
        for slice_, frame in np.ndindex(2, 3)
        for samples, values in lines_of(kspace[slice_, frame], slice_)
        if masks[frame][values["kspace_encode_step_1"]]
    ]
    done, images = reconstruct(write_ismrmrd(tmp_path / "cine.h5", header_xml(64, 48), readouts))
    assert not done["error"]
    assert images.shape == (3, 2, 64, 48)
    for slice_, frame in np.ndindex(2, 3):
        alone = write_scan(tmp_path / f"{slice_}{frame}.h5", (kspace[slice_, frame] * masks[frame])[None], target=None)
        np.testing.assert_allclose(images[frame, slice_], reconstruct(alone)[1][0], rtol=1e-4, atol=1e-5)


def test_a_volume_of_which_some_slices_are_full_is_reconstructed_each_as_it_is(reconstruct, tmp_path):
    kspace = object_kspace(SHAPE)
    mask = (np.arange(48) % 4 == 1) | CENTER
    mixed = kspace * mask
    mixed[1] = kspace[1]
    done, images = reconstruct(write_scan(tmp_path / "mixed.h5", mixed, target=None))
    assert not done["error"]
    alone = reconstruct(write_scan(tmp_path / "alone.h5", mixed[:1], target=None))[1]
    np.testing.assert_allclose(images[0], alone[0], rtol=1e-5, atol=1e-6)


def test_a_full_volume_is_refused_unless_it_is_to_be_undersampled_also_with_a_mask_beside_it(reconstruct, tmp_path):
    path = write_scan(tmp_path / "full.h5", object_kspace(SHAPE), target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = (np.arange(48) % 4 == 1) | CENTER
    assert "fully sampled" in reconstruct(path)[0]["error"]
    done, images = reconstruct(path, undersample=True)
    assert not done["error"]
    assert "a mask lies beside a k-space that is full: it is not applied" in done["findings"]
    assert np.isfinite(images).all()


def test_a_mask_narrower_than_the_lines_is_another_ones(reconstruct, tmp_path):
    lines = (np.arange(48) % 2 == 0) | CENTER
    path = write_scan(tmp_path / "a.h5", object_kspace(SHAPE) * lines, target=None)
    expected = reconstruct(path)
    with h5py.File(path, "a") as file:
        file["mask"] = (np.arange(48) % 4 == 0) | CENTER
    got = reconstruct(path)
    assert got[0]["acceleration"] == expected[0]["acceleration"] == pytest.approx(48 / lines.sum())
    np.testing.assert_array_equal(got[1], expected[1])


def test_a_mask_wider_than_the_lines_counts_only_where_there_are_some(reconstruct, tmp_path):
    lines = (np.arange(48) % 4 == 0) | CENTER
    path = write_scan(tmp_path / "a.h5", object_kspace(SHAPE) * lines, target=None)
    expected = reconstruct(path)
    with h5py.File(path, "a") as file:
        file["mask"] = (np.arange(48) % 2 == 0) | CENTER
    np.testing.assert_array_equal(reconstruct(path)[1], expected[1])


def test_the_line_that_an_odd_matrix_has_beyond_the_headers_range_is_not_acquired(run, tmp_path):
    lines = (np.arange(15) % 2 == 0) | (abs(np.arange(15) - 7) < 2)
    header = header_xml(64, 15, center=8, maximum=14)  # fastMRI's formula: lines 0 to 13 of 15
    path = write_scan(tmp_path / "a.h5", object_kspace((1, 4, 64, 15)) * lines, header=header, target=None)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(acquired_of(volume, 0), lines & (np.arange(15) < 14))


def test_a_grid_that_moves_beyond_a_wrong_header_loses_no_line_of_any_slice(tmp_path):
    masks = np.stack([(np.arange(48) % 4 == index % 4) | CENTER for index in range(8)])
    header = header_xml(64, 48, center=20, maximum=39)  # lines 4 to 43, says the header
    kspace = object_kspace((8, 4, 64, 48)) * masks[:, None, None]
    with open_volume(write_scan(tmp_path / "a.h5", kspace, header=header, target=None)) as volume:
        for index in range(8):
            np.testing.assert_array_equal(acquired_of(volume, index), masks[index])


def test_dust_on_the_lines_that_were_not_acquired_changes_nothing(reconstruct, tmp_path):
    kspace = object_kspace(SHAPE)
    mask = (np.arange(48) % 3 == 1) | CENTER
    exact = write_scan(tmp_path / "exact.h5", kspace * mask, target=None)
    dust = (3e-8 * np.abs(kspace).max() * ~mask * np.exp(1j * np.arange(48))).astype(np.complex64)
    dusty = write_scan(tmp_path / "dusty.h5", kspace * mask + dust, target=None)
    one, other = reconstruct(exact), reconstruct(dusty)
    assert one[0]["acceleration"] == other[0]["acceleration"]
    np.testing.assert_allclose(other[1], one[1], rtol=1e-3, atol=1e-4 * one[1].max())


def test_a_phase_first_file_comes_out_with_its_own_axes(reconstruct, tmp_path):
    kspace = object_kspace(SHAPE) * ((np.arange(48) % 4 == 1) | CENTER)
    header = header_xml(64, 48, recon=(32, 48))
    one = reconstruct(write_scan(tmp_path / "one.h5", kspace, header=header, target=None))[1]
    turned = np.ascontiguousarray(kspace.swapaxes(-1, -2))
    done, other = reconstruct(write_scan(tmp_path / "other.h5", turned, header=header, target=None))
    assert other.shape == (3, 48, 32)
    np.testing.assert_array_equal(other, one.swapaxes(-1, -2))
    assert "stored (phase, readout): turned to (readout, phase)" in done["findings"]


def test_a_file_without_header_is_reconstructed_from_the_lines_that_it_holds(reconstruct, tmp_path):
    kspace = object_kspace(SHAPE) * ((np.arange(48) % 4 == 1) | CENTER)
    path = write_scan(tmp_path / "a.h5", kspace, target=None)
    expected = reconstruct(path)[1]
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
    done, images = reconstruct(path)
    assert "no header" in done["findings"][0]
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize(("mode", "where"), [("separate", "its calibration lines hold it"), ("", "nothing does")])
def test_a_missing_centre_line_is_told_with_where_it_is(reconstruct, tmp_path, mode, where):
    kspace = object_kspace((1, 4, 64, 48))[0]
    readouts = [(samples, values) for line, (samples, values) in enumerate(lines_of(kspace)) if line % 2 == 1]
    if mode:
        readouts += [(samples, {**values, "flags": 1 << 19}) for samples, values in lines_of(kspace)[18:30]]
    calibration = f"<parallelImaging><calibrationMode>{mode}</calibrationMode></parallelImaging>" if mode else ""
    header = header_xml(64, 48).replace(b"</encoding>", calibration.encode() + b"</encoding>")
    error = reconstruct(write_ismrmrd(tmp_path / "raw.h5", header, readouts))[0]["error"]
    assert "lacks the centre line" in error
    assert where in error


def test_a_scan_without_calibration_lines_says_so(reconstruct, tmp_path):
    kspace = object_kspace((1, 4, 64, 48))[0]
    every_second = [line for index, line in enumerate(lines_of(kspace)) if index % 2 == 0]
    done, _ = reconstruct(write_ismrmrd(tmp_path / "raw.h5", header_xml(64, 48), every_second))
    assert "no calibration lines: coil maps are made from 1 central line" in done["findings"]
    with_center = [line for index, line in enumerate(lines_of(kspace)) if index % 2 == 0 or CENTER[index]]
    done, _ = reconstruct(write_ismrmrd(tmp_path / "raw2.h5", header_xml(64, 48), with_center))
    assert done["findings"] == []


def test_a_mask_is_never_acquired_over_partial_fourier_padding_as_in_the_public_code(reconstruct, run, tmp_path):
    pytest.importorskip("fastmri.models", reason="the public implementation is not installed")
    from fastmri.data.transforms import VarNetDataTransform
    from fastmri.models import VarNet

    from echotrain.models.importers import export_fastmri
    from echotrain.training.trained import load_trained

    kspace = object_kspace(SHAPE)
    mask = (np.arange(48) % 3 == 1) | CENTER
    kspace[..., :9] = 0
    path = write_scan(tmp_path / "a.h5", kspace * mask, header=header_xml(64, 48, center=15, maximum=38), target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = mask
    assert mask[:9].any(), "the mask must reach into the padding, or this shows nothing"
    images = reconstruct(path)[1]
    public = VarNet(num_cascades=2, chans=4, pools=2, sens_chans=3, sens_pools=2)
    public.load_state_dict(export_fastmri(load_trained(run).model.state_dict()))
    attributes = {"padding_left": 9, "padding_right": 48, "recon_size": (64, 48, 1), "max": 1.0}
    for index in range(3):
        sample = VarNetDataTransform()((kspace * mask)[index], mask.astype(np.float32), None, attributes, "a.h5", index)
        with torch.no_grad():
            expected = public(sample.masked_kspace[None], sample.mask[None]).numpy()[0]
        assert np.linalg.norm(images[index] - expected) < 1e-5 * np.linalg.norm(expected)


def test_reconstructions_are_not_written_among_the_scans_nor_where_links_among_them_lead(tmp_path):
    write_scan(tmp_path / "scans" / "deep" / "a.h5")
    write_scan(tmp_path / "pool" / "b.h5")
    (tmp_path / "scans" / "link").symlink_to(tmp_path / "pool")
    (tmp_path / "alias").symlink_to(tmp_path / "scans")

    def check(source: str, to: str) -> None:
        _check_place(source, find_sources(source), to)

    folder, alone = str(tmp_path / "scans"), str(tmp_path / "scans" / "deep" / "a.h5")
    for to in ("scans", "scans/deep", "scans/new", "alias", "alias/new", "pool"):
        with pytest.raises(ConfigError, match="lies among the scans"):
            check(folder, str(tmp_path / to))
    for to in ("out", "scans2", "pool/new"):
        check(folder, str(tmp_path / to))
    with pytest.raises(ConfigError, match="lies among the scans"):
        check(alone, str(tmp_path / "scans" / "deep"))
    check(alone, str(tmp_path / "scans"))


def test_reconstructions_are_not_written_among_keys(keyed_s3):
    keyed_s3.objects["lab", "scans//a.h5"] = keyed_s3.objects["lab", "scans/b.h5"] = b""
    for source, to in (
        ("s3://lab/scans", "s3://lab/scans/new"),
        ("s3://lab", "s3://lab/new"),
        ("s3://lab/scans/b.h5", "s3://lab/scans"),
    ):
        with pytest.raises(ConfigError, match="lies among the scans"):
            _check_place(source, find_sources(source), to)
    for source, to in (
        ("s3://lab/scans", "s3://lab/scans2"),
        ("s3://lab/scans/b.h5", "s3://lab"),
        ("s3://lab/scans//", "s3://lab/scans"),
    ):
        _check_place(source, find_sources(source), to)


@pytest.fixture
def given(monkeypatch):
    """Return the batches that networks are given, as they come."""
    batches = []
    reconstruct = TrainedModel.reconstruct
    monkeypatch.setattr(TrainedModel, "reconstruct", lambda self, batch: batches.append(batch) or reconstruct(self, batch))
    return batches


def test_a_file_is_compressed_to_the_coils_that_the_same_slices_of_a_catalog_are(reconstruct, given, tmp_path):
    catalog = write_simulated_catalog(tmp_path / "data", num_train=1, num_val=1)
    data = LinesData(catalog=catalog, coils=3, mask=MaskConfig(center_fractions=(0.2,)))
    expected = {batch.ids[0][1:3]: batch for batch in PlannedStream(data, seed=0, batch_size=1).evaluation()}
    run = write_run(tmp_path / "run", TINY, coils=3, mask=data.mask)
    for path in sorted((tmp_path / "data/scans").rglob("*.h5")):
        reconstruct(path, undersample=True, run=run, deidentifier=Deidentifier())
    compared = [(batch, expected[batch.ids[0][1:3]]) for batch in given if batch.ids[0][1:3] in expected]
    assert len(compared) == len(expected) == 4
    for batch, of_catalog in compared:
        assert batch.kspace.shape[1] == 3
        for mine, theirs in zip(batch.network_input(), of_catalog.network_input(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_file_whose_centre_is_too_small_for_the_virtual_coils_is_told_about(reconstruct, tmp_path):
    kspace = object_kspace((1, 6, 4, 48))
    lines = np.arange(48) % 4 == 0  # The centre line alone.
    path = write_scan(tmp_path / "few.h5", kspace * lines, target=None)
    done, _ = reconstruct(path, run=write_run(tmp_path / "run", TINY, coils=5))
    assert "data.coils=5: cannot be found in the 4 points" in done["error"]
    assert not reconstruct(path, run=write_run(tmp_path / "run4", TINY, coils=4))[0]["error"]


def test_a_run_of_before_there_were_virtual_coils_gets_all_coils(reconstruct, given, run, tmp_path):
    assert reconstruct(write_scan(tmp_path / "full.h5", object_kspace(SHAPE), target=None), undersample=True)[1] is not None
    assert {batch.kspace.shape[1] for batch in given} == {SHAPE[1]}

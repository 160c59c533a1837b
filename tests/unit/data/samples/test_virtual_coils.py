"""Virtual coils of samples: found in what each sample's own mask acquires, and the same whatever shares its batch, rank or threads."""

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.data.config import StreamConfig
from echotrain.data.fetch import Fetcher
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_kt import KtData, window
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.sample_format import StepRows
from echotrain.data.samples.virtual_coils import Acquired, calibrate, to_virtual_coils
from echotrain.errors import ConfigError, PayloadError
from echotrain.physics.kt_masks import KtMaskConfig
from echotrain.physics.masks import MaskConfig, central
from tests.catalogs import write_catalog
from tests.frame_catalogs import write_frames

R4 = MaskConfig(kind="equispaced", accelerations=(4,), center_fractions=(0.2,))
RANDOM = MaskConfig(kind="random", accelerations=(3,), center_fractions=(0.2,))
KT = KtMaskConfig(kinds=("uniform", "kt_gaussian", "kt_radial"), accelerations=(4,), acs_lines=4, random_start=True)
KT_LINES = dataclasses.replace(KT, kinds=("kt_uniform", "kt_gaussian"))
SHAPES = ((4, 24, 20), (7, 24, 20), (2, 24, 20), (6, 20, 22))


def stream_of(data, written, **options):
    config = StreamConfig(threads=options.pop("threads", 3))
    return PlannedStream(
        dataclasses.replace(data, catalog=written.catalog.root),
        **{"seed": 1, "batch_size": 4, "config": config, "catalog": written.catalog, **options},
    )


def samples_of(batches):
    """Return what a network is given of every sample that counts, as bytes, padded coils left out."""
    found = {}
    for batch in batches:
        kspace, mask, calibration, coil_mask = batch.network_input()
        for index, sample in enumerate(batch.ids):
            # Of a window, its frames have the same coils.
            real = coil_mask[index].reshape(-1, coil_mask.shape[-1])[0]
            assert not kspace[index][..., ~real, :, :].any()
            parts = (kspace[index][..., real, :, :], mask[index], calibration[index], batch.acquired()[index][real], batch.target[index])
            found[sample] = [(tuple(part.shape), part.numpy().tobytes()) for part in parts]
    return found


def trained(data, written, world_size=1, *, epoch=2, first_step=0, **options):
    found = {}
    for rank in range(world_size):
        stream = stream_of(data, written, rank=rank, world_size=world_size, **options)
        found |= samples_of(batch for step in stream.steps(epoch, first_step) for batch in step.batches)
        stream.close()
    return found


def energy(kspace):
    return (np.abs(kspace.astype(np.complex128)) ** 2).sum(-3)


def by_svd(frames, masks, centers, number):
    """Return virtual coils of several frames, (coil, ky, kx), by an SVD of all their centres together; their phases are another's."""
    calibration = np.concatenate([frame[:, mask & center] for frame, mask, center in zip(frames, masks, centers, strict=True)], axis=1)
    vectors = np.linalg.svd(calibration.astype(np.complex128), full_matrices=False)[0][:, :number]
    return [np.einsum("cv,cyx->vyx", vectors.conj(), frame) * mask for frame, mask in zip(frames, masks, strict=True)]


def center_of(shape, calibration):
    is_central = np.zeros(shape, bool)
    *rows, columns = np.atleast_1d(calibration).tolist()
    is_central[central(shape[0], *rows) if rows else slice(None), central(shape[1], columns)] = True
    return is_central


@pytest.mark.parametrize("mask", [R4, RANDOM])
@pytest.mark.parametrize("coils", [1, 3, 6])
def test_lines_hold_what_the_centre_of_each_slice_shows_of_its_coils(tmp_path, mask, coils):
    written = write_catalog(tmp_path, shapes=SHAPES, unmeasured=((0, 0), (9, 0)))
    seen = 0
    for step in stream_of(LinesData(mask=mask, coils=coils), written).steps(0):
        for batch in step.batches:
            for index, sample in enumerate(batch.ids):
                kspace, lines = written.kspace[sample.volume, sample.slice], batch.mask[index, 0].numpy()
                real = min(coils, len(kspace))
                assert batch.coil_mask[index].tolist() == [coil < real for coil in range(batch.kspace.shape[1])]
                assert not batch.kspace[index, real:].any()
                center = center_of(kspace.shape[1:], batch.num_low_frequencies[index].numpy())
                (expected,) = by_svd([kspace], [lines & np.ones_like(center)], [center], real)
                np.testing.assert_allclose(energy(batch.kspace[index].numpy()), energy(expected), rtol=1e-4, atol=1e-4)
                np.testing.assert_array_equal(batch.target[index].numpy(), written.target[sample.volume, sample.slice])
                seen += 1
    assert seen == 18


@pytest.mark.parametrize("edges", ["clamp", "circular"])
@pytest.mark.parametrize("num_adjacent", [1, 3])
def test_all_frames_of_a_window_are_compressed_by_what_their_centres_show_together(tmp_path, edges, num_adjacent):
    written = write_frames(tmp_path, shapes=((5, 20, 24), (2, 20, 24)), frames=(6, 0, 4), volumes=5)
    data = KtData(mask=KT, num_adjacent=num_adjacent, edges=edges, coils=3)
    kinds = set()
    for step in stream_of(data, written, batch_size=6).steps(0):
        for batch in step.batches:
            kspace, mask, calibration, coil_mask = (each if num_adjacent > 1 else each[:, None] for each in batch.network_input())
            kinds.add(calibration.dim())
            for index, sample in enumerate(batch.ids):
                all_frames = sorted((each for each in written.kspace if each[:3] == sample[:3]), key=lambda each: each.frame or 0)
                seen = window(sample.frame or 0, len(all_frames), num_adjacent, edges)
                first_seen = {frame: place for place, frame in reversed(list(enumerate(seen)))}
                frames = [written.kspace[all_frames[frame]] for frame in first_seen]
                shape, places = frames[0].shape[1:], list(first_seen.values())
                masks = [mask[index, place, 0].numpy() & np.ones(shape, bool) for place in places]
                centers = [center_of(shape, calibration[index, place].numpy()) for place in places]
                real = min(3, len(frames[0]))
                assert coil_mask[index].tolist() == [[coil < real for coil in range(kspace.shape[2])]] * num_adjacent
                expected = dict(zip(first_seen, by_svd(frames, masks, centers, real), strict=True))
                for one, other in itertools.product(range(num_adjacent), repeat=2):
                    # What frames have in common is changed by phases only where these differ from frame to frame.
                    got, wanted = (
                        (first * second.conj()).sum(0)
                        for first, second in (
                            (kspace[index, one].numpy(), kspace[index, other].numpy()),
                            (expected[seen[one]], expected[seen[other]]),
                        )
                    )
                    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)
                np.testing.assert_array_equal(batch.target[index].numpy(), written.target[sample])
    assert kinds == {2, 3}


LINES = LinesData(mask=RANDOM, coils=3)
FRAMES = KtData(mask=KT, num_adjacent=3, edges="circular", coils=3)


@pytest.fixture(scope="module", params=["lines", "frames"])
def data_and_catalog(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "lines":
        return LINES, write_catalog(folder, shapes=SHAPES, volumes=5)
    return FRAMES, write_frames(folder, shapes=((5, 20, 24), (2, 20, 24), (6, 20, 24)), frames=(4, 3), volumes=3)


@pytest.mark.parametrize(
    "options", [{"world_size": 2}, {"batch_size": 1}, {"batch_size": 7, "world_size": 3}, {"threads": 1}, {"threads": 9}]
)
def test_a_sample_is_the_same_to_the_bit_on_any_rank_in_any_company_and_by_any_threads(data_and_catalog, options):
    data, written = data_and_catalog
    alone = trained(data, written)
    assert len(alone) == len(written.kspace)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert trained(data, written, **options) == alone
    finally:
        torch.set_num_threads(before)


def test_steps_resumed_in_the_middle_are_those_of_the_whole_epoch(data_and_catalog):
    data, written = data_and_catalog
    whole, rest = trained(data, written), trained(data, written, first_step=2)
    assert 0 < len(rest) < len(whole)
    assert rest == {sample: whole[sample] for sample in rest}


def test_fillers_are_made_as_any_other_and_a_part_of_a_batch_is_that_part(data_and_catalog):
    data, written = data_and_catalog
    batches = [batch for rank in range(4) for step in stream_of(data, written, rank=rank, world_size=4).steps(2) for batch in step.batches]
    fillers = [batch for batch in batches if not batch.weight.any()]
    assert fillers
    assert samples_of(fillers).items() <= trained(data, written).items()
    whole = next(stream_of(data, written, batch_size=6).steps(2)).batches[0]
    parts = [whole.part(start, start + 1) for start in range(len(whole.ids))]
    assert samples_of(parts) == samples_of([whole])


def test_what_no_mask_acquires_decides_nothing(tmp_path):
    packed, lines = (write_catalog(tmp_path / kind, kind=kind, shapes=((6, 24, 20),)) for kind in ("packed", "lines"))
    assert trained(LINES, packed) == trained(LINES, lines)
    frames, of_lines = (write_frames(tmp_path / f"kt-{kind}", kind=kind, shapes=((6, 20, 24),)) for kind in ("packed", "lines"))
    data = dataclasses.replace(FRAMES, mask=KT_LINES)
    assert trained(data, frames) == trained(data, of_lines)


def test_evaluation_has_virtual_coils_too(tmp_path):
    written = write_catalog(tmp_path, shapes=((6, 24, 20),), splits=("train", "val"))
    batches = list(stream_of(LINES, written).evaluation())
    assert {batch.kspace.shape[1] for batch in batches} == {3}
    assert samples_of(batches) == samples_of(stream_of(LINES, written, seed=9, batch_size=1).evaluation())


def test_without_virtual_coils_everything_is_as_it_was(tmp_path):
    written = write_catalog(tmp_path, shapes=SHAPES)
    data = dataclasses.replace(LINES, coils=0)
    for step in stream_of(data, written).steps(0):
        for batch in step.batches:
            for index, sample in enumerate(batch.ids):
                truth = written.kspace[sample.volume, sample.slice]
                np.testing.assert_array_equal(batch.kspace[index, : len(truth)].numpy(), truth)


@pytest.mark.parametrize(("coils", "steps_at_once"), [(0, 4), (4, 2)])
def test_prefetch_counts_what_is_made(tmp_path, coils, steps_at_once):
    written = write_catalog(tmp_path)
    taken = []

    def steps():
        for row in written.catalog.rows():
            taken.append(row)
            yield StepRows([row], [1.0], 1)

    one = 4 * 24 * 20 * 8 / 1e6
    data = LinesData(mask=R4, coils=coils)
    fetcher = Fetcher(written.catalog, data.make_format(seed=0), config=StreamConfig(threads=2, prefetch_mb=4.9 * one))
    fetched = fetcher.fetch(steps(), epoch=0)
    next(fetched)
    assert len(taken) == steps_at_once + 1  # The last had no room.
    assert len(list(fetched)) == 17
    fetcher.close()


def test_prefetch_counts_the_virtual_coils_of_every_window(tmp_path):
    written = write_frames(tmp_path, shapes=((5, 20, 24),))
    rows = written.catalog.rows()[:4]

    def memory(coils):
        fetcher = Fetcher(written.catalog, dataclasses.replace(FRAMES, coils=coils).make_format(seed=0), config=StreamConfig(threads=1))
        (begun,) = fetcher._format.begin(StepRows(rows, [1.0] * 4, 4), epoch=None)
        estimated = fetcher._format.memory_nbytes(rows)
        fetcher.close()
        return begun.memory_nbytes, estimated

    made = 4 * 3 * 3 * 20 * 24 * 8  # Four windows of three frames of three coils.
    (plain, plain_estimate), (with_coils, estimate) = memory(0), memory(3)
    assert (with_coils - plain, estimate - plain_estimate) == (made, made)


SAMPLE = SampleId("d", "v", 3)


def compress(kspace, mask=None, center=(4,), asked=2):
    frame = Acquired(kspace, np.ones((1, kspace.shape[-1]), bool) if mask is None else mask, center)
    out = np.full((min(asked, len(kspace)), *kspace.shape[1:]), np.nan, np.complex64)
    to_virtual_coils(SAMPLE, [frame], [calibrate(frame)], asked, [out])
    return out


@pytest.fixture
def kspace():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(6, 3, 12)) + 1j * rng.normal(size=(6, 3, 12))).astype(np.complex64)


@pytest.mark.parametrize(
    ("mask", "center", "points"),
    [
        (None, (0,), 0),
        (None, (1,), 3),
        (np.arange(12)[None] >= 7, (4,), 3),  # Partial Fourier begins within the centre: one line of it is there.
        (np.ones((3, 12), bool), (2, 2), 4),
    ],
)
def test_a_centre_of_fewer_points_than_virtual_coils_is_refused(kspace, mask, center, points):
    with pytest.raises(ConfigError, match=rf"data\.coils=5: cannot be found in the {points} points .* of d/v\[3\]"):
        compress(kspace, mask, center, asked=5)
    if points:
        assert np.isfinite(compress(kspace, mask, center, asked=points)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, complex(0, -np.inf)])
@pytest.mark.parametrize("line", [0, 6])
def test_what_is_not_finite_is_refused_where_it_was_acquired_and_ignored_where_not(kspace, value, line):
    mask = np.arange(12)[None] % 2 == 0
    expected = compress(kspace, mask)
    kspace[2, 1, line] = value
    with pytest.raises(PayloadError, match=r"d/v\[3\]: has k-space that is not finite"):
        compress(kspace, mask)
    kspace[2, 1, line], kspace[2, 1, line + 1] = 0, value
    assert np.isfinite(compress(kspace, mask)).all()
    assert expected.shape == (2, 3, 12)


def test_a_blank_centre_is_refused_and_a_blank_slice_stays_blank(kspace):
    assert not compress(np.zeros_like(kspace)).any()
    kspace[:, :, central(12, 4)] = 0
    kspace[:4] = 0  # What is left, the first coils do not show.
    with pytest.raises(PayloadError, match=r"d/v\[3\]: has zeros for its centre"):
        compress(kspace)


def sizes(coils, height, width, unmeasured=(0, 0)):
    left, right = unmeasured
    values = {"volume": "v", "coils": coils, "height": height, "width": width, "padding_left": left, "padding_right": width - right}
    return pa.table({name: [value] for name, value in values.items()})


@pytest.mark.parametrize(
    ("data", "refused", "taken"),
    [
        (LinesData(coils=8, mask=MaskConfig(center_fractions=(0.0,))), (4, 64, 64), (0, 0, 0)),
        (LinesData(coils=8, mask=MaskConfig(accelerations=(4, 8), center_fractions=(0.08, 0.04))), (8, 3, 50), (6, 3, 50)),
        (LinesData(coils=8, mask=MaskConfig(kind="magic_fraction", accelerations=(8,), center_fractions=(0.0,))), (9, 7, 50), (9, 8, 50)),
        (LinesData(coils=0, mask=MaskConfig(center_fractions=(0.0,))), None, (4, 64, 64)),
    ],
)
def test_catalogs_of_which_a_mask_has_too_small_a_centre_are_refused_before_a_run(data, refused, taken):
    assert data.check(sizes(*taken)) == []
    if refused:
        with pytest.raises(
            ConfigError, match=rf"data\.coils=8: \d coils cannot be found in a mask's \d+ central points of a {refused[1]}x"
        ):
            data.check(sizes(*refused))


@pytest.mark.parametrize("unmeasured", list(itertools.product((0, 7, 9, 11), (0, 8, 9))))
@pytest.mark.parametrize("kind", [LinesData, KtData])
def test_what_is_taken_before_a_run_and_no_more_is_made_in_it(tmp_path, kind, unmeasured):
    """Lines that were never measured may leave little of a centre of 4, or nothing; the sixth point of a column is the last."""
    mask = R4 if kind is LinesData else dataclasses.replace(KT, kinds=("uniform",))
    written = write_catalog(tmp_path, shapes=((30, 6, 20),), volumes=1, slices=1, unmeasured=(unmeasured,))
    there = sum(unmeasured[0] <= line < 20 - unmeasured[1] for line in range(*central(20, 4).indices(20)))
    assert there == {0: 4, 7: 4, 9: 3, 11: 1}[unmeasured[0]] - {0: 0, 8: 0, 9: 1}[unmeasured[1]]
    for coils in {max(1, 6 * there), min(30, 6 * there + 1)}:
        data = kind(coils=coils, mask=mask)
        if coils <= 6 * there:
            data.check(written.catalog.table.select(data.checked))
            assert len(list(stream_of(data, written).steps(0))) == 1
            continue
        with pytest.raises(ConfigError, match=rf"data\.coils={coils}: .* a mask's {6 * there} central points of a 6x20 matrix"):
            data.check(written.catalog.table.select(data.checked))
        with pytest.raises(ConfigError, match=rf"data\.coils={coils}: cannot be found in the {6 * there} points"):
            list(stream_of(data, written).steps(0))


@pytest.mark.parametrize(("kinds", "coils"), [(("kt_radial", "uniform"), 16), (("uniform",), 80)])
def test_frames_of_which_a_mask_has_too_small_a_centre_are_refused_before_a_run(tmp_path, kinds, coils):
    written = write_frames(tmp_path, shapes=((90, 20, 24),), volumes=1, slices=1, frames=(1,))
    mask = dataclasses.replace(KT, kinds=kinds)
    KtData(mask=mask, coils=coils).check(written.catalog.table)
    with pytest.raises(ConfigError, match=rf"data\.coils={coils + 1}: "):
        KtData(mask=mask, coils=coils + 1).check(written.catalog.table)


def test_a_negative_number_of_coils_is_refused():
    for kind in (LinesData, KtData):
        with pytest.raises(ConfigError, match=r"data\.coils=-1: must be at least 0"):
            kind(coils=-1)

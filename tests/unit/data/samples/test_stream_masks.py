"""Which lines a stream acquires of each slice: by its own identity, inside of what was measured, and read by its own mask."""

from pathlib import Path

import numpy as np
import pytest

from echotrain.data.catalog.identity import SampleId
from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.physics.masks import MaskConfig
from tests.catalogs import Written, write_catalog

# Of two widths, one of them odd, in volumes of different padding and coils: several samples of each share every batch.
SHAPES = ((3, 24, 160), (4, 20, 201), (2, 24, 160))
UNMEASURED = ((17, 0), (0, 23), (30, 9), (0, 0))
RANDOM = MaskConfig(kind="random")

Lines = dict[SampleId, np.ndarray]


def written_to(folder: Path, kind: str = "packed", **options) -> Written:
    return write_catalog(folder, kind=kind, shapes=SHAPES, unmeasured=UNMEASURED, volumes=12, splits=("train", "val"), **options)


def stream_of(folder: Path, mask: MaskConfig = RANDOM, seed: int = 1) -> PlannedStream:
    data = LinesData(catalog=str(folder), mask=mask)
    return PlannedStream(data, seed=seed, batch_size=9, config=StreamConfig(threads=3))


def trained(folder: Path, *, epoch: int = 0, **options) -> Lines:
    stream = stream_of(folder, **options)
    batches = [batch for step in stream.steps(epoch) for batch in step.batches]
    stream.close()
    assert max(len(batch.ids) for batch in batches) > 2
    return {sample: batch.mask[i, 0, 0].numpy() for batch in batches for i, sample in enumerate(batch.ids)}


def evaluated(folder: Path, **options) -> Lines:
    stream = stream_of(folder, **options)
    found = {sample: batch.mask[i, 0, 0].numpy() for batch in stream.evaluation() for i, sample in enumerate(batch.ids)}
    stream.close()
    return found


def by_volume(masks: Lines) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for sample, lines in masks.items():
        found.setdefault(sample.volume, set()).add(lines.tobytes())
    return found


def test_slices_of_a_volume_are_trained_on_with_masks_of_their_own_and_evaluated_with_one(tmp_path: Path) -> None:
    written_to(tmp_path)
    masks = trained(tmp_path)
    assert {len(of_slices) for of_slices in by_volume(masks).values()} == {3}
    assert len({lines.tobytes() for lines in masks.values()}) == len(masks) == 18
    held_out = by_volume(evaluated(tmp_path))
    assert {len(of_slices) for of_slices in held_out.values()} == {1}
    assert len(set.union(*held_out.values())) == len(held_out) == 6


@pytest.mark.parametrize("kind", ["random", "equispaced", "equispaced_fraction", "magic", "magic_fraction"])
def test_no_line_is_acquired_that_was_never_measured_and_padding_changes_no_other(tmp_path: Path, kind: str) -> None:
    mask = MaskConfig(kind=kind)
    written_to(tmp_path / "padded")
    write_catalog(tmp_path / "whole", shapes=SHAPES, volumes=12, splits=("train", "val"))
    cut = []
    for masks_of in (trained, evaluated):
        padded, whole = masks_of(tmp_path / "padded", mask=mask), masks_of(tmp_path / "whole", mask=mask)
        assert padded.keys() == whole.keys()
        for sample, lines in padded.items():
            left, right = UNMEASURED[int(sample.volume.removeprefix("file")) % len(UNMEASURED)]
            measured = np.zeros(len(lines), bool)
            measured[left : len(lines) - right] = True
            np.testing.assert_array_equal(lines, whole[sample] & measured)
            cut += [int(whole[sample][:left].sum()), int(whole[sample][len(lines) - right :].sum())]
    assert sum(count > 0 for count in cut) > 18


@pytest.mark.parametrize("kind", ["packed", "lines"])
def test_each_sample_is_read_by_its_own_mask_whatever_shares_its_step(tmp_path: Path, kind: str) -> None:
    written = written_to(tmp_path, kind)
    stream = stream_of(tmp_path, MaskConfig(kind="equispaced", accelerations=(8,), center_fractions=(0.02,)))
    steps = list(stream.steps(0))
    assert {len(step.batches) for step in steps} == {2}
    for batch in (batch for step in steps for batch in step.batches):
        for i, sample in enumerate(batch.ids):
            truth, lines = written.kspace[sample.volume, sample.slice], batch.mask[i, 0].numpy()
            np.testing.assert_array_equal(batch.kspace[i, : len(truth)].numpy() * lines, truth * lines)
    stream.close()


def test_masks_are_of_the_run_and_the_epoch_in_training_alone(tmp_path: Path) -> None:
    written_to(tmp_path)
    runs = [trained(tmp_path), trained(tmp_path, seed=2), trained(tmp_path, epoch=1)]
    assert len({lines.tobytes() for masks in runs for lines in masks.values()}) == 3 * 18
    assert by_volume(evaluated(tmp_path)) == by_volume(evaluated(tmp_path, seed=2))

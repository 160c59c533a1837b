import itertools
import pickle

import numpy as np
import pytest

from echotrain.errors import CatalogError, ScanError, TrainingError
from echotrain.metrics.collector import VolumeCollector, mean_quality
from echotrain.metrics.volume import score_volume


def volume_pair(seed: int, num_slices: int = 4, shape: tuple[int, int] = (20, 18)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.random((num_slices, *shape), dtype=np.float32) * (seed + 1)
    return target, target + 0.1 * rng.standard_normal(target.shape, dtype=np.float32)


VOLUMES = {("knees", "b"): volume_pair(0), ("knees", "a"): volume_pair(1, num_slices=3), ("brains", "a"): volume_pair(2, shape=(15, 31))}
EXPECTED = {key: len(target) for key, (target, _) in VOLUMES.items()}
SLICES = [(*key, index) for key, (target, _) in VOLUMES.items() for index in range(len(target))]


def collect(slices, expected=None) -> VolumeCollector:
    collector = VolumeCollector(expected)
    for dataset, volume, index in slices:
        target, reconstruction = VOLUMES[dataset, volume]
        collector.add((dataset, volume, index, None), target[index], reconstruction[index], float(target.max()))
    return collector


@pytest.mark.parametrize("order", [SLICES, SLICES[::-1], np.random.default_rng(0).permutation(np.array(SLICES, dtype=object)).tolist()])
def test_slices_in_any_order_score_as_their_whole_volumes_do(order):
    scores = collect(order, EXPECTED).volumes()
    assert [(score.dataset, score.volume) for score in scores] == [("brains", "a"), ("knees", "a"), ("knees", "b")]
    for score in scores:
        whole = score_volume(*VOLUMES[score.dataset, score.volume])
        assert (score.quality["nmse"], score.quality["psnr"], score.quality["ssim"]) == pytest.approx(
            (whole["nmse"], whole["psnr"], whole["ssim"]), rel=1e-5
        )
        assert score.num_slices == EXPECTED[score.dataset, score.volume]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_ranks_that_share_the_slices_agree_with_one_rank_exactly(num_ranks):
    reference = collect(SLICES).volumes()
    merged = VolumeCollector(EXPECTED)
    for rank in range(num_ranks):
        merged.merge(pickle.loads(pickle.dumps(collect(SLICES[rank::num_ranks]).state())))
    assert merged.volumes() == reference


def test_a_slice_that_comes_twice_counts_once():
    twice = collect(itertools.chain(SLICES, SLICES[:3]), EXPECTED)
    twice.merge(collect(SLICES[:2]).state())
    assert twice.volumes() == collect(SLICES).volumes()


def test_frames_of_one_slice_each_count():
    (dataset, volume), (target, reconstruction) = next(iter(VOLUMES.items()))
    collector = VolumeCollector({(dataset, volume): len(target)})
    for frame in range(len(target)):
        collector.add((dataset, volume, 0, frame), target[frame], reconstruction[frame], float(target.max()))
    (score,), whole = collector.volumes(), score_volume(target, reconstruction)
    assert (score.quality["nmse"], score.quality["psnr"], score.quality["ssim"]) == pytest.approx(
        (whole["nmse"], whole["psnr"], whole["ssim"]), rel=1e-5
    )


def test_a_missing_slice_is_named_by_its_volume():
    with pytest.raises(CatalogError, match=r"knees/a: 2 of 3 slices.*1 of 3 are not whole"):
        collect([key for key in SLICES if key != ("knees", "a", 1)], EXPECTED).volumes()


def test_a_volume_that_nobody_expected_is_refused():
    with pytest.raises(CatalogError, match=r"brains/a: 4 of 0 slices"):
        collect(SLICES, {key: count for key, count in EXPECTED.items() if key != ("brains", "a")}).volumes()


def test_an_empty_slice_within_a_volume_still_counts():
    target, reconstruction = volume_pair(3)
    target[2] = 0
    collector = VolumeCollector({("d", "v"): 4})
    for index in range(4):
        collector.add(("d", "v", index, None), target[index], reconstruction[index], float(target.max()))
    (score,) = collector.volumes()
    assert score.quality["nmse"] == pytest.approx(score_volume(target, reconstruction)["nmse"], rel=1e-5)


def test_a_narrow_reconstruction_is_cropped_as_its_volume_would_be():
    rng = np.random.default_rng(0)
    target, wide = rng.random((3, 32, 32)), rng.random((3, 64, 20))
    collector = VolumeCollector()
    for index in range(3):
        collector.add(("flair", "203", index, None), target[index], wide[index], float(target[:, 6:26, 6:26].max()))
    assert collector.volumes()[0].quality["ssim"] == pytest.approx(score_volume(target, wide)["ssim"])


def test_the_mean_gives_every_volume_the_same_weight():
    scores = collect(SLICES).volumes()
    assert mean_quality([score.quality for score in scores]) == pytest.approx(
        {name: sum(score.quality[name] for score in scores) / 3 for name in ("nmse", "psnr", "ssim")}
    )


def test_slices_that_cannot_be_scored_are_refused_by_name():
    image = np.ones((8, 8))
    with pytest.raises(ScanError, match=r"d/v/3: maximum 0"):
        VolumeCollector().add(("d", "v", 3, None), image, image, 0.0)
    with pytest.raises(TrainingError, match=r"d/v/3: reconstruction: has pixels that are not finite"):
        VolumeCollector().add(("d", "v", 3, None), image, image * np.nan, 1.0)
    empty = VolumeCollector()
    empty.add(("d", "v", 0, None), image * 0, image, 1.0)
    with pytest.raises(ScanError, match="d/v: target volume: is zero everywhere"):
        empty.volumes()

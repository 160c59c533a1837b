import numpy as np
import pytest

from echotrain.errors import ScanError, TrainingError
from echotrain.metrics.volume import evaluation_crop, nmse, psnr, score_volume, ssim


def volume(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def ramp() -> tuple[np.ndarray, np.ndarray]:
    """Return a target of 2 x 8 x 8 that counts to 127, and the same with 2 added on the first slice and 1 on the second."""
    target = np.arange(128, dtype=np.float64).reshape(2, 8, 8)
    return target, target + np.array([2.0, 1.0]).reshape(2, 1, 1)


def test_golden_values_worked_out_by_hand():
    target, reconstruction = ramp()
    squared_error = 64 * 4 + 64 * 1
    energy = 127 * 128 * 255 / 6
    assert nmse(target, reconstruction) == pytest.approx(squared_error / energy, rel=1e-12)
    assert psnr(target, reconstruction) == pytest.approx(10 * np.log10(127**2 / (squared_error / 128)), rel=1e-12)


def test_golden_ssim_from_its_formula_on_the_four_windows_of_a_slice():
    target, reconstruction = ramp()
    c1, c2 = (0.01 * 127) ** 2, (0.03 * 127) ** 2
    values = []
    for first, second in zip(target, reconstruction, strict=True):
        for row, column in np.ndindex(2, 2):
            x, y = first[row : row + 7, column : column + 7].ravel(), second[row : row + 7, column : column + 7].ravel()
            covariance = np.cov(x, y)
            luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
            values.append(luminance * (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2))
    assert ssim(target, reconstruction) == pytest.approx(np.mean(values), rel=1e-9)


def test_the_data_range_is_that_of_the_volume_and_not_of_a_slice():
    target, reconstruction = ramp()
    target[0] /= 10
    per_slice = np.mean([psnr(target[[i]], reconstruction[[i]]) for i in range(2)])
    assert psnr(target, reconstruction) != pytest.approx(per_slice, abs=0.1)
    assert ssim(target, reconstruction) == pytest.approx(np.mean([ssim(target[[i]], reconstruction[[i]], 127.0) for i in range(2)]))


def test_a_perfect_reconstruction_scores_zero_infinity_and_one():
    target = volume(2, 9, 9)
    quality = score_volume(target, target.copy())
    assert quality == {"nmse": 0, "psnr": float("inf"), "ssim": 1}


@pytest.mark.parametrize("factor", [1e-6, 1e3])
def test_scores_do_not_depend_on_the_unit_of_the_magnitudes(factor):
    target, reconstruction = volume(2, 16, 15, seed=1).astype(np.float64), volume(2, 16, 15, seed=2).astype(np.float64)
    first, second = score_volume(target, reconstruction), score_volume(target * factor, reconstruction * factor)
    assert second == pytest.approx(first, rel=1e-9)


@pytest.mark.parametrize(
    ("target", "reconstruction", "compared"),
    [
        ((3, 32, 32), (3, 32, 32), (3, 32, 32)),
        ((3, 32, 32), (3, 64, 20), (3, 20, 20)),  # FLAIR with 203 phase encodes: a square of its width
        ((3, 20, 20), (3, 64, 33), (3, 20, 20)),
        ((3, 25, 19), (3, 50, 19), (3, 25, 19)),  # rectangular targets stay whole
        ((3, 16, 32), (3, 32, 20), (3, 16, 20)),
    ],
)
def test_volumes_are_compared_on_what_both_have(target, reconstruction, compared):
    cropped = evaluation_crop(np.ones(target), np.ones(reconstruction))
    assert [array.shape for array in cropped] == [compared, compared]


def test_a_narrow_reconstruction_is_compared_with_the_middle_of_the_target():
    target = volume(2, 32, 32)
    quality = score_volume(target, np.pad(target, ((0, 0), (16, 16), (0, 0)))[:, :, 6:26])
    assert quality["nmse"] == 0


def test_a_volume_that_cannot_be_scored_is_refused():
    target = volume(2, 9, 9)
    with pytest.raises(ScanError, match="zero everywhere"):
        score_volume(np.zeros_like(target), target)
    with pytest.raises(ScanError, match="not finite"):
        score_volume(np.where(target > 0.5, np.nan, target), target)
    with pytest.raises(TrainingError, match="not finite"):
        score_volume(target, np.full_like(target, np.nan))
    with pytest.raises(ScanError, match="one shape"):
        nmse(target, target[:, :8])
    with pytest.raises(ScanError, match="at least 7 pixels"):
        ssim(target[:, :6], target[:, :6])

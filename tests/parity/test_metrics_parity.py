import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from echotrain.losses.ssim import SSIMLoss
from echotrain.metrics import volume

losses = pytest.importorskip("fastmri.losses", reason="the public fastMRI package is not installed")


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the public evaluation; its command line, which nothing here calls, also wants the package runstats."""
    if "runstats" not in sys.modules:
        monkeypatch.setitem(sys.modules, "runstats", SimpleNamespace(Statistics=None))
    return pytest.importorskip("fastmri.evaluate", reason="the public fastMRI package is not whole")


def volumes(seed: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = (1e-4 * rng.random((5, 40, 37))).astype(dtype)
    return target, np.abs(target + 1e-5 * rng.standard_normal(target.shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1])
def test_volume_metrics_equal_the_public_evaluation(evaluate, seed, dtype):
    target, reconstruction = volumes(seed, dtype)
    assert volume.nmse(target, reconstruction) == pytest.approx(float(evaluate.nmse(target, reconstruction)), rel=1e-12)
    assert volume.psnr(target, reconstruction) == pytest.approx(float(evaluate.psnr(target, reconstruction)), rel=1e-12)
    assert volume.ssim(target, reconstruction) == pytest.approx(float(evaluate.ssim(target, reconstruction)[0]), rel=1e-6)


def test_the_ssim_loss_and_its_gradient_equal_the_public_ones():
    target, output = (torch.from_numpy(array) for array in volumes(2, np.float64))
    data_range = torch.full((5,), float(target.max()), dtype=torch.float64)
    ours, theirs = output.clone().requires_grad_(), output.clone().requires_grad_()
    loss = SSIMLoss()(ours, target, data_range).mean()
    public = losses.SSIMLoss().double()(theirs.unsqueeze(1), target.unsqueeze(1), data_range)
    torch.testing.assert_close(loss, public)
    loss.backward()
    public.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)

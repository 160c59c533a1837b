"""fastMRI's own Lightning module of VarNet, trained from a bucket, small; resumed where it was, on one rank and two."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
import torch

from echotrain.benchmarks.throttled import serve_throttled
from echotrain.data.config import StreamConfig
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError, ResourceError
from echotrain.physics.masks import MaskConfig
from tests.simulated import write_simulated_catalog
from tests.unit.recipes.lightning_ranks import SMALL, quiet_module, save_gradients
from tests.unit.training.many_ranks import run_ranks

pytest.importorskip("fastmri", reason="the public implementation is not installed")
pl = pytest.importorskip("pytorch_lightning", reason="the extra lightning is not installed")

from fastmri import evaluate  # noqa: E402

from echotrain.data import lightning_data  # noqa: E402
from echotrain.data.lightning_data import CatalogDataModule  # noqa: E402  (imports Lightning)
from echotrain.recipes import lightning_varnet  # noqa: E402
from echotrain.recipes.lightning_varnet import LightningVarNet  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    # A debug size has few steps, and CI may have many cores.
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    # What saved the checkpoint that a test goes on from is not asked for another.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]

MASK = MaskConfig(kind="equispaced_fraction", accelerations=(4,), center_fractions=(0.15,))
# Neither slices to train on nor volumes to validate on suffice for two ranks.
NUM_TRAIN, NUM_VAL, NUM_SLICES = 3, 3, 3


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Return a catalog in a bucket of a server on this machine."""
    folder = tmp_path_factory.mktemp("buckets")
    scans = tmp_path_factory.mktemp("scans")
    write_simulated_catalog(scans, to=str(folder / "lab" / "knee"), num_train=NUM_TRAIN, num_val=NUM_VAL, num_slices=NUM_SLICES)
    with serve_throttled(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield LinesData(catalog="s3://lab/knee", mask=MASK)


class Noting(LightningVarNet):
    """Notes what it is trained on and shown."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.trained, self.losses = [], []

    def training_step(self, batch, batch_idx):
        self.trained.append((self.current_epoch, batch.fname[0], int(batch.slice_num), batch.mask.numpy().tobytes()))
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss.detach()))
        return loss


def module() -> Noting:
    torch.manual_seed(0)
    return Noting(**SMALL)


def trainer(folder: Path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, **{**quiet, "max_epochs": 2, "num_sanity_val_steps": 1, **options})


def test_it_trains_from_a_bucket_and_its_own_metrics_improve(bucket, tmp_path) -> None:
    made, run = module(), trainer(tmp_path, max_epochs=6)
    # The module's metrics, once used in inference mode, could not be used outside of it.
    before = trainer(tmp_path, inference_mode=False).validate(made, datamodule=CatalogDataModule(bucket), verbose=False)[0]
    run.fit(made, datamodule=CatalogDataModule(bucket))
    after = {name: float(value) for name, value in run.callback_metrics.items()}
    assert after["val_metrics/ssim"] > before["val_metrics/ssim"]
    assert after["validation_loss"] < before["validation_loss"]
    for epoch in range(6):
        seen = [sample[1:3] for sample in made.trained if sample[0] == epoch]
        assert len(set(seen)) == len(seen) == NUM_TRAIN * NUM_SLICES
    assert len({sample[1:] for sample in made.trained}) > 3 * NUM_TRAIN * NUM_SLICES


def test_its_metrics_are_those_of_whole_volumes(bucket, tmp_path) -> None:
    made = module()
    found = trainer(tmp_path).validate(made, datamodule=CatalogDataModule(bucket), verbose=False)[0]
    volumes: dict[str, list] = {}
    for batch in CatalogDataModule(bucket).val_dataloader():
        with torch.no_grad():
            image = made(batch.masked_kspace, batch.mask, batch.num_low_frequencies)
        volumes.setdefault(batch.fname[0], []).append((batch.target[0].numpy(), image[0].numpy()))
    assert [len(slices) for slices in volumes.values()] == [NUM_SLICES] * NUM_VAL
    scores = [evaluate.nmse(*map(np.stack, zip(*slices, strict=True))) for slices in volumes.values()]
    assert found["val_metrics/nmse"] == pytest.approx(sum(scores) / NUM_VAL, rel=1e-4)


@pytest.fixture(scope="module")
def whole(bucket, tmp_path_factory) -> Noting:
    """Return a module that was trained for three epochs."""
    made = module()
    trainer(tmp_path_factory.mktemp("whole"), max_epochs=3, enable_checkpointing=False).fit(made, datamodule=CatalogDataModule(bucket))
    return made


@pytest.mark.parametrize("step", [4, 9])
def test_a_run_that_was_killed_goes_on_with_the_next_batch_to_the_same_weights(bucket, whole, tmp_path, step) -> None:
    """Step 4 is in the midst of an epoch of nine, 9 the end of one."""
    saving = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    killed = module()
    trainer(tmp_path, max_steps=step, max_epochs=3, callbacks=[saving]).fit(killed, datamodule=CatalogDataModule(bucket))
    assert killed.trained == whole.trained[:step]
    resumed = module()
    again = trainer(tmp_path, max_epochs=3, enable_checkpointing=False)
    again.fit(resumed, datamodule=CatalogDataModule(bucket), ckpt_path=str(tmp_path / f"step={step}.ckpt"), weights_only=False)
    assert [sample[1:] for sample in killed.trained + resumed.trained] == [sample[1:] for sample in whole.trained]
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_run_that_leaves_epochs_early_goes_on_with_the_next_one(bucket, tmp_path) -> None:
    options = {"limit_train_batches": 4, "limit_val_batches": 1, "max_epochs": 3}
    whole = module()
    trainer(tmp_path / "whole", enable_checkpointing=False, **options).fit(whole, datamodule=CatalogDataModule(bucket))
    assert len(whole.trained) == 12
    saving = pl.callbacks.ModelCheckpoint(tmp_path, filename="end", save_on_train_epoch_end=True)
    killed, resumed = module(), module()
    trainer(tmp_path, callbacks=[saving], **{**options, "max_epochs": 1}).fit(killed, datamodule=CatalogDataModule(bucket))
    again = trainer(tmp_path, enable_checkpointing=False, **options)
    again.fit(resumed, datamodule=CatalogDataModule(bucket), ckpt_path=str(tmp_path / "end.ckpt"), weights_only=False)
    assert killed.trained + resumed.trained == whole.trained


def test_the_test_writes_a_file_for_each_volume(tmp_path) -> None:
    catalog = write_simulated_catalog(tmp_path, num_train=8, num_val=0, num_slices=2)
    data = CatalogDataModule(LinesData(catalog=catalog, mask=MASK))
    trainer(tmp_path).test(module(), datamodule=data, verbose=False)
    written = sorted((tmp_path / "reconstructions").iterdir())
    assert written
    names = {sample.fname for sample in data.test_dataloader().sampler}
    assert {path.name for path in written} == names
    for path in written:
        with h5py.File(path) as file:
            assert file["reconstruction"].shape[0] == 2


def test_a_filler_changes_nothing(bucket, tmp_path) -> None:
    torch.manual_seed(0)
    made = LightningVarNet(**SMALL)
    made.log = lambda *_, **__: None
    batch = next(iter(CatalogDataModule(bucket).train_dataloader()))
    one = made.training_step(batch, 0)
    assert float(one.detach()) != 0
    filler = batch._replace(weight=torch.zeros(1, dtype=torch.float64))
    nothing = made.training_step(filler, 0)
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert all(not parameter.grad.any() for parameter in made.parameters() if parameter.grad is not None)
    brighter = batch._replace(masked_kspace=2 * batch.masked_kspace)
    pairs = list(zip(batch, brighter, strict=True))
    both = type(batch)(*(torch.cat(pair) if isinstance(pair[0], torch.Tensor) else pair[0] for pair in pairs))
    both = both._replace(weight=torch.tensor([1.0, 0.0]))
    assert made.training_step(both, 0).detach() == pytest.approx(float(one.detach()), rel=1e-5)


def of_weights(batch, weights):
    """Return the batch's sample, brighter each time, as often as there are weights."""
    each = [batch._replace(masked_kspace=(1 + number) * batch.masked_kspace) for number in range(len(weights))]
    pairs = zip(*each, strict=True)
    return type(batch)(*(torch.cat(pair) if isinstance(pair[0], torch.Tensor) else pair[0] for pair in pairs))._replace(
        weight=torch.tensor(weights)
    )


def test_fillers_are_not_logged(bucket) -> None:
    made, logged = LightningVarNet(**SMALL), []
    made.log = lambda name, *_, **__: logged.append(name)
    batch = next(iter(CatalogDataModule(bucket).train_dataloader()))
    made.training_step(of_weights(batch, [0.0]), 0)
    assert logged == []
    made.training_step(of_weights(batch, [0.0, 1.0]), 0)
    assert logged == ["train_loss"]


def test_two_ranks_have_the_gradients_of_the_mean_over_all_their_samples(bucket, tmp_path) -> None:
    batch = next(iter(CatalogDataModule(bucket).train_dataloader()))
    brighter = batch._replace(masked_kspace=2 * batch.masked_kspace)
    filler = batch._replace(weight=torch.zeros(1))
    steps = [(batch, brighter), (brighter, filler), (filler, batch)]
    torch.save([[tuple(each) for each in step] for step in steps], tmp_path / "steps.pt")
    run_ranks(save_gradients, 2, str(tmp_path))
    for step, found in zip(steps, torch.load(tmp_path / "gradients.pt"), strict=True):
        made, real = quiet_module(), [each for each in step if each.weight]
        for each in real:
            (made.training_step(each, 0) / len(real)).backward()
        for name, parameter in made.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_rank_weighs_what_its_samples_are_of_all(monkeypatch) -> None:
    """As of three samples on two ranks; fastMRI's network itself takes one sample at a time."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda total: total.fill_(3))
    shares = [float(lightning_varnet._share(torch.tensor(count))) for count in (2, 1)]
    losses_of_samples = (torch.tensor([1.0, 2.0]), torch.tensor([9.0]))
    over_ranks = sum(share * losses.mean() for share, losses in zip(shares, losses_of_samples, strict=True)) / 2
    assert float(over_ranks) == pytest.approx((1 + 2 + 9) / 3)


def test_settings_of_makers_are_refused_at_once(bucket) -> None:
    with pytest.raises(ConfigError, match=r"stream.makers=3: has no effect in a loop of one's own"):
        CatalogDataModule(bucket, config=StreamConfig(makers=3))


def test_without_lightning_it_says_what_to_install(monkeypatch) -> None:
    def missing(name):
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ResourceError, match=r"pip install 'echotrain\[lightning\]'"):
        lightning_data._lightning()


def test_lightning_is_taken_by_the_name_that_the_program_knows_it_by(monkeypatch) -> None:
    other = ModuleType("lightning.pytorch")
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", other)
    assert lightning_data._lightning() is pl
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    assert lightning_data._lightning() is other


@pytest.mark.slow
def test_two_ranks_train_on_each_slice_once_and_score_as_one_does(bucket, tmp_path) -> None:
    made = module()
    options = {"strategy": "ddp_spawn", "devices": 2, "max_epochs": 2, "callbacks": [Seen(tmp_path)]}
    two = trainer(tmp_path, enable_checkpointing=False, **options)
    two.fit(made, datamodule=CatalogDataModule(bucket))
    ranks = [torch.load(tmp_path / f"seen-{rank}.pt") for rank in range(2)]
    assert [len(rank) for rank in ranks] == [10, 10]
    for epoch in (slice(5), slice(5, 10)):
        real = [sample[:2] for rank in ranks for sample in rank[epoch] if sample[2]]
        assert len(set(real)) == len(real) == NUM_TRAIN * NUM_SLICES
    # Lightning brings the weights back from its processes.
    alone = trainer(tmp_path).validate(made, datamodule=CatalogDataModule(bucket), verbose=False)[0]
    for name, value in alone.items():
        assert float(two.callback_metrics[name]) == pytest.approx(value, rel=1e-4), name


class Seen(pl.Callback):
    """Writes what a rank is trained on."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._seen = folder, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self._seen.append((batch.fname[0], int(batch.slice_num), float(batch.weight)))

    def on_train_end(self, trainer, module) -> None:
        torch.save(self._seen, self._folder / f"seen-{trainer.global_rank}.pt")

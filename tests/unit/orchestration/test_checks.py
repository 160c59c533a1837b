"""What is told before a worker starts."""

import logging

import pyarrow as pa
import pytest

from echotrain.config import override, to_dict
from echotrain.data.catalog import SCHEMA, Catalog
from echotrain.data.config import DataConfig
from echotrain.errors import CheckpointError
from echotrain.orchestration.checks import check_resumable, check_selection, warn_of_hidden_names
from echotrain.physics.masks import MaskConfig
from echotrain.storage.local import LocalStore
from echotrain.training.checkpoint import CheckpointMeta
from echotrain.training.experiment import NUMBERLESS, Experiment, flatten, science

ROWS = [("v1", "p1", "train"), ("v2", "p1", "val")]
TABLE = pa.Table.from_pylist([{"dataset": "d", "volume": volume, "patient": patient, "split": split} for volume, patient, split in ROWS])


@pytest.mark.parametrize("patients", [["p1"], []])
def test_leaks_of_a_given_split_are_warned_of_once_and_only_where_there_are_some(caplog, patients):
    catalog = Catalog(TABLE, f"root-{len(patients)}", 1, {"leaks": {"patients": patients}})
    with caplog.at_level(logging.WARNING):
        for fraction in (0.5, 1.0):
            check_selection(catalog, DataConfig(catalog="root", fraction=fraction))
    assert [record.message.count("leaks 1 patients (1 in train and val)") for record in caplog.records] == [1] * len(patients)


def rows_of(volumes):
    blank = {field.name: {"string": "", "bool": None}.get(str(field.type), 1) for field in SCHEMA}
    return pa.Table.from_pylist([{**blank, "volume": volume} for volume in volumes], schema=SCHEMA)


@pytest.mark.parametrize(
    ("volumes", "seeding", "told"),
    [
        (["file1000001", "volume-0123456789ab", "volume-0123456789ac"], "fastmri", "2 of 3 volumes"),
        (["file1000001"], "fastmri", None),
        (["volume-0123456789ab"], "volume", None),
    ],
)
def test_masks_by_file_name_over_pseudonyms_are_told(caplog, volumes, seeding, told):
    catalog = Catalog(rows_of(volumes), "root", 1, {})
    with caplog.at_level(logging.WARNING):
        warn_of_hidden_names(catalog, DataConfig(mask=MaskConfig(seeding=seeding)))
    assert (told in caplog.text) if told else caplog.text == ""


@pytest.fixture
def begun(tmp_path):
    """Return a run's experiment, its store, and a function that resumes it with settings."""
    store, base = LocalStore(tmp_path), override(Experiment(), ["ema_decay=0.5", "data.catalog=s3://lab/a"])
    meta = CheckpointMeta(name="step-1", position={}, science=science(base), config=to_dict(base), catalog={})
    return lambda *settings: check_resumable(meta, override(base, settings), store)


@pytest.mark.parametrize(
    "setting",
    [
        *("model.activation_checkpointing=true", "model.compile_regularizer=true"),
        *("epochs=99", "data.catalog=s3://lab/moved", "data.trusted=[s3://a]", "workers=2", "storage=elsewhere", "device=cpu"),
        *("log_every=1", "stream.threads=3", "wandb.group=x"),
    ],
)
def test_a_run_goes_on_elsewhere_and_by_other_means(begun, setting):
    begun(setting)


@pytest.mark.parametrize(
    "setting",
    [
        "seed=1",
        "batch_size=8",
        "precision=bf16",
        "ema_decay=0.9",
        "validate_every=2",
        "model.chans=3",
        "data.mask.kind=magic",
        "optim.lr=1",
    ],
)
def test_a_run_is_not_gone_on_with_by_other_science(begun, setting):
    with pytest.raises(CheckpointError, match=rf"made by another experiment: {setting.partition('=')[0]} was .*, now"):
        begun(setting)


def test_what_changes_no_number_is_a_setting_and_no_science():
    assert set(NUMBERLESS) == {"model.activation_checkpointing", "model.compile_regularizer"}
    assert set(NUMBERLESS) <= set(flatten(to_dict(Experiment()))) - set(science(Experiment()))

"""What is told before a worker starts."""

import logging

import pyarrow as pa
import pytest

from echotrain.data.catalog import SCHEMA, Catalog
from echotrain.data.config import DataConfig
from echotrain.orchestration.checks import check_selection, warn_of_hidden_names
from echotrain.physics.masks import MaskConfig

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

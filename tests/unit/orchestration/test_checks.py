"""What is known of a catalog before anybody trains on it."""

import logging

import pyarrow as pa
import pytest

from echotrain.data.catalog import Catalog
from echotrain.data.config import DataConfig
from echotrain.orchestration.checks import check_selection

ROWS = [("v1", "p1", "train"), ("v2", "p1", "val")]
TABLE = pa.Table.from_pylist([{"dataset": "d", "volume": volume, "patient": patient, "split": split} for volume, patient, split in ROWS])


@pytest.mark.parametrize("patients", [["p1"], []])
def test_leaks_of_a_given_split_are_warned_of_once_and_only_where_there_are_some(caplog, patients):
    catalog = Catalog(TABLE, f"root-{len(patients)}", 1, {"leaks": {"patients": patients}})
    with caplog.at_level(logging.WARNING):
        for fraction in (0.5, 1.0):
            check_selection(catalog, DataConfig(catalog="root", fraction=fraction))
    assert [record.message.count("leaks 1 patients (1 in train and val)") for record in caplog.records] == [1] * len(patients)

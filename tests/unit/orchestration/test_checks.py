"""What is told before a worker starts."""

import logging

import pyarrow as pa
import pytest

from echotrain.data.catalog import SCHEMA, Catalog
from echotrain.data.config import DataConfig
from echotrain.orchestration.checks import warn_of_hidden_names
from echotrain.physics.masks import MaskConfig


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

"""Fixtures of the tests of sweeps."""

import importlib.metadata
import json

import pytest


@pytest.fixture(scope="session")
def wandb_schema():
    """Return W&B's own schema of a sweep, from its package, of which no code is run."""
    (path,) = (file for file in importlib.metadata.files("sweeps") if file.name == "schema.json")
    return json.loads(path.read_text())

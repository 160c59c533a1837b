"""A run that the version before began goes on, and ends where it would have ended."""

import json

import numpy as np
import pytest

from echotrain.storage.local import LocalStore
from echotrain.training.checkpoint import find_checkpoint, load_weights
from tests.local_cluster import lines, run
from tests.previous_version import LEFT, TRUTH, copy_of, experiment_before

pytestmark = pytest.mark.ray


def test_a_run_goes_on_in_the_midst_of_an_epoch_as_the_version_before_would_have_gone_on(local_ray, tmp_path):
    copy_of("run", tmp_path)
    result = run(experiment_before(tmp_path))
    assert result.is_finished
    store = LocalStore(tmp_path / "run")
    meta = find_checkpoint(store)
    assert meta.name == TRUTH["final"]
    weights = load_weights(store, meta)
    before = np.load(LEFT / "final_weights.npz")
    assert set(weights) == set(before)
    for name, value in weights.items():
        # Not to the bit: another processor adds up in another order.
        np.testing.assert_allclose(value.numpy(), before[name], rtol=1e-4, atol=1e-5, err_msg=name)
    logged = [(line["global_step"], line["loss"]) for line in lines(result) if line["kind"] == "train"]
    expected = [(line["global_step"], line["loss"]) for line in map(json.loads, TRUTH["metrics"]) if line["kind"] == "train"]
    assert [step for step, _ in logged] == [step for step, _ in expected] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose([loss for _, loss in logged], [loss for _, loss in expected], rtol=1e-5)

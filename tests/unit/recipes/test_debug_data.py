"""Where recipes that need no data of yours get theirs: simulated once, prepared with the public key."""

from pathlib import Path

import pytest

from echotrain.data.formats import open_volume
from echotrain.data.formats.deidentify import PUBLIC_SALT
from echotrain.recipes import debug_data


@pytest.mark.parametrize(
    ("ensure", "dataset", "ending"), [("ensure_debug_data", "", ".h5"), ("ensure_cine_data", "simulated-cine", ".mat")]
)
def test_scans_are_simulated_and_prepared_once(tmp_path, monkeypatch, ensure, dataset, ending):
    prepared = []

    def prepare(config):
        (Path(config.to) / "catalog").mkdir(parents=True)
        prepared.append(config)

    monkeypatch.setattr(debug_data, "connect", lambda: None)
    monkeypatch.setattr(debug_data, "prepare", prepare)
    for _ in range(2):
        getattr(debug_data, ensure)(str(tmp_path / "prepared"))
    (config,) = prepared
    files = sorted(path for path in Path(config.source).rglob("*") if path.is_file())
    assert len(files) == (9 if ending == ".h5" else 18)
    assert {path.suffix for path in files} == {ending}
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert (config.to, config.salt, config.convert.dataset) == (str(tmp_path / "prepared"), PUBLIC_SALT, dataset)
    with open_volume(files[0], location=str(files[0])) as volume:
        assert volume.header.num_images >= 2

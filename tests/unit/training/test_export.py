import dataclasses
import json

import pytest
import torch
from toys import toy_meta

from echotrain.config import to_dict
from echotrain.errors import CheckpointError, ConfigError
from echotrain.recipes.mae import mae_debug
from echotrain.recipes.varnet import varnet_demo_debug
from echotrain.similarity.embedders import make_embedder
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import CheckpointWriter
from echotrain.training.export import export_encoder
from echotrain.training.state import Position, TrainState
from echotrain.training.trained import load_trained
from ray_jobs.export import main


def save_run(experiment, folder):
    """Write a run with one checkpoint, and return its network."""
    torch.manual_seed(3)
    model = experiment.model.build()
    state = TrainState(model, experiment.optim.build(model))
    meta = dataclasses.replace(
        toy_meta(experiment), name=state.position.name, config=to_dict(experiment), position=dataclasses.asdict(Position())
    )
    writer = CheckpointWriter(open_store(str(folder)), keep=1)
    writer.save(meta, state.files(), is_best=True)
    writer.close()
    return model


def test_the_encoder_of_a_run_is_loaded_elsewhere_as_it_was_trained(tmp_path, capsys) -> None:
    model = save_run(mae_debug(), tmp_path / "run")
    to = tmp_path / "out" / "encoder.pt"
    to.parent.mkdir()
    assert main([str(tmp_path / "run"), "--to", str(to)]) == 0
    assert capsys.readouterr().out.strip() == str(to)
    state = torch.load(to, weights_only=True)
    assert state.keys() == model.encoder_state().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.encoder_state().items())
    assert json.loads(to.with_suffix(".json").read_text()) == {"side": 32, "patch": 8, "heads": 2}
    assert make_embedder("vit", str(to))(torch.rand(2, 40, 31).numpy()).shape == (2, 16)


def test_what_cannot_be_exported_is_refused_by_name(tmp_path, capsys) -> None:
    save_run(varnet_demo_debug(), tmp_path / "varnet")
    with pytest.raises(ConfigError, match=r"model\.kind=.*has no encoder"):
        export_encoder(str(tmp_path / "varnet"), str(tmp_path / "encoder.pt"))
    with pytest.raises(ConfigError, match=r"must end in \.pt"):
        export_encoder(str(tmp_path / "varnet"), str(tmp_path / "encoder"))
    with pytest.raises(CheckpointError):
        export_encoder(str(tmp_path / "absent"), str(tmp_path / "encoder.pt"))
    assert main([str(tmp_path / "absent"), "--to", str(tmp_path / "encoder.pt")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "encoder.pt").exists()


def test_a_run_that_makes_no_reconstructions_is_not_evaluated_as_if_it_did(tmp_path) -> None:
    save_run(mae_debug(), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"task\.kind=mae .*: makes no images"):
        load_trained(str(tmp_path / "run"))

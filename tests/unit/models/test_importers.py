"""fastMRI checkpoints in and out."""

import pytest
import torch

from echotrain.errors import CheckpointError
from echotrain.models.importers import export_fastmri, fastmri_config, import_fastmri, load_fastmri, load_state, read_fastmri
from echotrain.models.unrolled.varnet import VarNetConfig

SMALL = VarNetConfig(num_cascades=2, chans=4, pools=3, sens_chans=3, sens_pools=2)


def test_export_and_import_give_back_the_same_bits():
    state = SMALL.build().state_dict()
    again = import_fastmri(export_fastmri(state))
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_names_are_the_public_ones():
    names = set(export_fastmri(SMALL.build().state_dict()))
    assert {
        "sens_net.norm_unet.unet.down_sample_layers.0.layers.0.weight",
        "sens_net.norm_unet.unet.up_conv.1.0.layers.4.weight",
        "sens_net.norm_unet.unet.up_conv.1.1.bias",
        "cascades.1.dc_weight",
        "cascades.1.model.unet.conv.layers.4.weight",
        "cascades.1.model.unet.up_transpose_conv.2.layers.0.weight",
        "cascades.1.model.unet.up_conv.1.layers.0.weight",
        "cascades.1.model.unet.up_conv.2.0.layers.0.weight",
        "cascades.1.model.unet.up_conv.2.1.weight",
    } <= names


@pytest.mark.parametrize("lightning", [False, True])
def test_plain_and_lightning_checkpoints_load_from_disk(tmp_path, lightning):
    torch.manual_seed(0)
    source, model = SMALL.build(), SMALL.build()
    state = export_fastmri(source.state_dict())
    if lightning:
        prefixed = {f"varnet.{name}": tensor for name, tensor in state.items()} | {"loss.w": torch.ones(1, 1, 7, 7) / 49}
        state = {"epoch": 3, "state_dict": prefixed, "hyper_parameters": {"lr": 1e-3}}
    torch.save(state, tmp_path / "model.pt")
    load_fastmri(tmp_path / "model.pt", model)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True))


def test_the_architecture_is_read_off_the_state_dict():
    assert fastmri_config(SMALL.build().state_dict()) == SMALL


def test_a_checkpoint_of_another_size_is_refused_and_what_differs_is_named(tmp_path):
    torch.save(
        export_fastmri(VarNetConfig(num_cascades=3, chans=5, pools=3, sens_chans=3, sens_pools=2).build().state_dict()), tmp_path / "a.pt"
    )
    with pytest.raises(CheckpointError) as caught:
        load_fastmri(tmp_path / "a.pt", SMALL.build())
    message = str(caught.value)
    assert "a.pt" in message
    assert "cascades.2.dc_weight" in message
    assert "(5, 2, 3, 3) where the model has (4, 2, 3, 3)" in message
    assert "num_cascades=3 chans=5" in message


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(CheckpointError, match=r"lacks \d+ tensors .*has 2 tensors that the model has not \(first: weight\)"):
        load_fastmri(tmp_path / "linear.pt", SMALL.build())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        read_fastmri(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no state_dict"):
        read_fastmri(tmp_path / "list.pt")


@pytest.mark.parametrize(
    "prefix", ["varnet.", "module.", "_orig_mod.", "module.varnet.", "varnet.module._orig_mod.", "_orig_mod.module.module."]
)
def test_what_wraps_a_network_is_taken_off_its_names_in_any_order(prefix):
    state = export_fastmri(SMALL.build().state_dict())
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()} | {f"{prefix.replace('varnet.', '')}loss.w": torch.ones(1)}
    assert import_fastmri(wrapped).keys() == import_fastmri(state).keys()


def test_a_network_compiled_within_another_has_the_same_names():
    state = export_fastmri(SMALL.build().state_dict())
    compiled = {name.replace(".model.", ".model._orig_mod."): tensor for name, tensor in state.items()}
    assert import_fastmri(compiled).keys() == import_fastmri(state).keys()


def test_two_networks_in_one_state_dict_are_refused_by_name():
    state = export_fastmri(SMALL.build().state_dict())
    both = {**{f"varnet.{name}": t for name, t in state.items()}, **{f"module.{name}": t for name, t in state.items()}}
    with pytest.raises(CheckpointError, match=r"varnet\.\S+ and module\.\S+: are two tensors of one name"):
        import_fastmri(both)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {"unet.down_sample_layers.0.layers.0.weight": s["cascades.0.regularizer.unet.encoder.0.conv1.weight"]}, "it is a U-Net"),
        (lambda s: {**s, "cascades.0.model.prompt_level1.prompt_param": torch.ones(1)}, "it is a PromptMR"),
        (lambda s: {name: t for name, t in s.items() if not name.startswith("sens_net")}, r"it has no 'sens_net\.norm_unet"),
        (lambda s: {name: t for name, t in s.items() if "encoder.1" not in name}, r"encoder\.1\.conv1\.weight"),
        (lambda s: {**s, "cascades.999999.dc_weight": torch.ones(1)}, "numbers 1000000 cascades"),
    ],
)
def test_another_network_is_refused_as_what_it_is(change, words):
    with pytest.raises(CheckpointError, match=words):
        fastmri_config(change(SMALL.build().state_dict()), "weights.pt")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt: does not exist"):
        read_fastmri(tmp_path / "none.pt")


METRICS = {f"{name}.quantity": torch.zeros(1) for name in ("NMSE", "SSIM", "PSNR", "ValLoss", "TotExamples", "TotSliceExamples")}


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.module."])
def test_what_a_lightning_module_keeps_beside_its_network_is_left_out_and_told(tmp_path, caplog, wrapper):
    source, model = SMALL.build(), SMALL.build()
    named = {f"{wrapper}varnet.{name}": tensor for name, tensor in export_fastmri(source.state_dict()).items()}
    torch.save({"state_dict": METRICS | named | {"loss.w": torch.ones(1, 1, 7, 7)}}, tmp_path / "a.ckpt")
    load_fastmri(tmp_path / "a.ckpt", model)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True))
    assert [message for message in caplog.messages if "left out 6 tensors" in message and "NMSE.quantity" in message]


def test_extras_of_a_network_that_is_not_whole_do_not_make_it_so_and_those_below_it_are_refused():
    state = {f"varnet.{name}": tensor for name, tensor in export_fastmri(SMALL.build().state_dict()).items()}
    lacking = METRICS | {name: tensor for name, tensor in state.items() if name != "varnet.cascades.1.dc_weight"}
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors \(first: cascades\.1\.dc_weight\)"):
        load_state(SMALL.build(), import_fastmri(lacking), "a.ckpt")
    with pytest.raises(CheckpointError, match=r"the model has not \(first: more\)"):
        load_state(SMALL.build(), import_fastmri(state | {"varnet.more": torch.ones(1)}), "a.ckpt")


def with_value(value: float, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    state = {name: tensor.clone() for name, tensor in SMALL.build().state_dict().items()}
    state["cascades.1.dc_weight"] = torch.full((1,), value, dtype=dtype)
    return state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (with_value(float("nan")), "not finite in float32"),
        (with_value(float("inf")), "not finite in float32"),
        (with_value(-float("inf"), torch.float16), "not finite in float32"),
        (with_value(1e300, torch.float64), "not finite in float32"),
        (with_value(1, torch.int64), "is of int64"),
        (with_value(1, torch.bool), "is of bool"),
        (with_value(1, torch.complex64), "is of complex64"),
    ],
)
def test_weights_that_are_no_finite_floats_are_refused_by_name(state, words):
    model = SMALL.build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"a\.pt: cascades\.1\.dc_weight: .*{words}"):
        load_state(model, state, "a.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_the_model_s(dtype):
    model, state = SMALL.build(), SMALL.build().to(dtype).state_dict()
    load_state(model, state, "a.pt")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert all(torch.equal(tensor, state[name].float()) for name, tensor in model.state_dict().items())

"""What is taken of torch that it does not promise: named here when it goes, apart from what takes it."""

import importlib


def test_torch_keeps_a_function_from_being_compiled_without_importing_the_compiler():
    private = importlib.import_module("torch._compile")
    assert callable(getattr(private, "_disable_dynamo", None)), (
        "torch._compile._disable_dynamo is gone, of which echotrain.models.layers.draws keeps draw() from being compiled: take "
        "torch.compiler.disable there, and see that importing a network still does not import torch._dynamo"
    )

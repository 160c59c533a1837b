"""Errors of workers arrive as they were raised, whatever class a module keeps to itself."""

import pytest

from echotrain.errors import CredentialsError, EchotrainError, StorageError
from echotrain.orchestration.runtime import mapping


class _PrivateError(StorageError):
    """Known to one module alone."""


@pytest.mark.parametrize(("raised", "arrives"), [(CredentialsError, CredentialsError), (_PrivateError, StorageError)])
def test_an_error_crosses_processes_as_the_nearest_public_one(raised: type[EchotrainError], arrives: type[EchotrainError]) -> None:
    found = mapping._restored(mapping._as_text(raised("s3://lab/x", "cannot be", "Do this.")))
    assert type(found) is arrives
    assert str(found) == "s3://lab/x: cannot be. Do this."

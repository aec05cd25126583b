import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def kernel_folder():
    default = Path(__file__).resolve().parents[1] / "../shared/reference"
    folder = Path(os.environ.get("GRAPHSIM_REFERENCE", default)) / "kernels"
    if not folder.is_dir():
        pytest.skip("the reference measurements are not here")
    return folder

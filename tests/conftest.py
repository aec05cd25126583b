import pytest

from tests.paths import REFERENCE


@pytest.fixture(scope="session")
def kernel_folder():
    folder = REFERENCE / "kernels"
    if not folder.is_dir():
        pytest.skip("the reference measurements are not here")
    return folder

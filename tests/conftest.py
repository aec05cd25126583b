import gc

import pytest
from hypothesis import Phase, settings

from tests.paths import REFERENCE


def pytest_configure(config: pytest.Config) -> None:
    """A plain run tries the laws of deployments on a third of the examples that are tried where slow tests run."""
    plain = config.option.markexpr == "not slow"
    settings.register_profile(
        "laws of deployments",
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        max_examples=5 if plain else 15,
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests run first, so that workers (`--no-loadscope-reorder`) end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What was imported and collected stays, so that the collector of garbage need not look through it each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def kernel_folder():
    folder = REFERENCE / "kernels"
    if not folder.is_dir():
        pytest.skip("the reference measurements are not here")
    return folder

import pytest


@pytest.fixture(autouse=True)
def _guarded(guarded_memory):
    """Kernel tests always run on poisoned, guarded memory."""

"""What every test may use."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The services run on uvloop; so do the tests."""
    return "asyncio", {"use_uvloop": True}

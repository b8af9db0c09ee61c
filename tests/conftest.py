"""What every test may use."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The services run on uvloop in their own processes; a test is told what went wrong more clearly by asyncio."""
    return "asyncio", {"use_uvloop": False}

"""What a test needs and this machine has not."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(says: str) -> NoReturn:
    """Skip with what to install; fail where `CI=true`, for there a skipped test would be taken for a passed one."""
    if os.environ.get("CI") == "true":
        pytest.fail(says)
    pytest.skip(says)

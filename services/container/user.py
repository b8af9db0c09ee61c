"""From root to the image's ordinary user."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

USER = "errand"


def become(groups: Sequence[int] = ()) -> None:
    """This process is `errand` from now on, for good, with no capability left. `groups` are beside its own."""
    entry = pwd.getpwnam(USER)
    os.setgroups(groups)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)

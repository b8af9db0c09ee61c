"""What a user marks a task with, to find it again: tags, and metadata under names. With their limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

TAGS_LIMIT = 20
METADATA_LIMIT = 20
MARK_LIMIT_CHARS = 50
"""Of a tag, and of the name of a piece of metadata."""
METADATA_LIMIT_CHARS = 500
"""Of what stands under such a name."""
MARKS_LIMIT_BYTES = 48 * 1024
"""More than all that these allow can take in JSON, at four bytes a character."""

_MARK = re.compile(rf"[\w.:/@+#-]{{1,{MARK_LIMIT_CHARS}}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def wrong_tags(tags: Iterable[str]) -> str:
    """Why a task cannot have these tags together; empty when it can."""
    tags = set(tags)
    if len(tags) > TAGS_LIMIT:
        return f"A task has at most {TAGS_LIMIT} tags, and these are {len(tags)}."
    if any(not _MARK.fullmatch(tag) for tag in tags):
        return f"A tag is 1 to {MARK_LIMIT_CHARS} letters, digits and any of ._:/@+#- without spaces."
    return ""


def wrong_metadata(metadata: Mapping[str, str]) -> str:
    """Why a task cannot have this metadata; empty when it can."""
    if len(metadata) > METADATA_LIMIT:
        return f"A task has at most {METADATA_LIMIT} pieces of metadata, and these are {len(metadata)}."
    if any(not _MARK.fullmatch(name) for name in metadata):
        return f"A name of metadata is 1 to {MARK_LIMIT_CHARS} letters, digits and any of ._:/@+#- without spaces."
    if any(len(value) > METADATA_LIMIT_CHARS or _CONTROL.search(value) for value in metadata.values()):
        return f"A value of metadata is one line of at most {METADATA_LIMIT_CHARS} characters."
    return ""

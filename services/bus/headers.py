"""Names and codes of JetStream's that nats-py has no word for."""

from __future__ import annotations

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_LOG = "Nats-Expected-Last-Subject-Sequence-Subject"
MESSAGE_ID = "Nats-Msg-Id"
SCHEDULE_TARGET = "Nats-Schedule-Target"
SUBJECT_HEADERS = (EXPECTED_LOG, SCHEDULE_TARGET)
"""Headers whose value is a subject."""
WRONG_LAST_SEQUENCE = 10071

NOBODY = "503"
"""The status of an answer to what nobody takes."""
NONE_CAME = "408"
"""The status of a request for a shared message that has waited in vain."""

"""When a device whose push service does not take it is tried again."""

from __future__ import annotations

from gateway.push.patience import LONGEST_SECONDS, Patience


def test_the_wait_doubles_until_it_is_long_enough() -> None:
    patience = Patience()
    waits = [patience.failed("phone", 15.0, 0.0) for _ in range(8)]
    assert waits == [15.0, 30.0, 60.0, 120.0, 240.0, 480.0, LONGEST_SECONDS, LONGEST_SECONDS]
    assert patience.failed("tablet", 15.0, 0.0) == 15.0, "each device has its own"


def test_a_device_waits_for_its_time_and_one_that_worked_for_none() -> None:
    patience = Patience()
    patience.failed("phone", 15.0, 100.0)
    assert [patience.left("phone", now) for now in (100.0, 110.0, 115.0, 200.0)] == [15.0, 5.0, 0.0, 0.0]
    patience.worked("phone")
    assert patience.failed("phone", 15.0, 100.0) == 15.0

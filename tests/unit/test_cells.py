"""What is called how in a cell."""

from __future__ import annotations

import re

import pytest

from protocol.cells import BUCKETS, NAME, ROOTS, STREAMS, Cell
from protocol.permissions import permissions
from protocol.routes import ROUTES, Service
from services import bus

B = Cell("b")

SUBJECTS = [
    ("cmd.owner.t1.submit_task", "b.cmd.owner.t1.submit_task"),
    ("live.>", "b.live.>"),
    ("$KV.lease.attempt.t1", "$KV.b_lease.attempt.t1"),
    ("$O.blobs.C.x", "$O.b_blobs.C.x"),
    ("$JS.API.STREAM.CREATE.KV_lease", "$JS.API.STREAM.CREATE.KV_b_lease"),
    ("$JS.API.DIRECT.GET.TASKS", "$JS.API.DIRECT.GET.b_TASKS"),
    ("$JS.API.DIRECT.GET.TASKS.evt.*.*.task.*", "$JS.API.DIRECT.GET.b_TASKS.b.evt.*.*.task.*"),
    ("$JS.API.CONSUMER.CREATE.OBJ_blobs.>", "$JS.API.CONSUMER.CREATE.OBJ_b_blobs.>"),
    ("$JS.ACK.TASKS.push.>", "$JS.ACK.b_TASKS.push.>"),
    ("_INBOX_gateway.x", "_INBOX_gateway.x"),
    ("$SRV.PING", "$SRV.PING"),
]


@pytest.mark.parametrize(("ours", "servers"), SUBJECTS)
def test_each_name_has_its_cells_before_it_once_and_no_cell_changes_nothing(ours: str, servers: str) -> None:
    assert B.subject(ours) == B.subject(servers) == servers
    assert Cell().subject(ours) == ours
    if not ours.startswith("$JS"):
        assert B.back(servers) == ours


def test_every_stream_bucket_and_first_token_of_the_house_is_known_to_cells() -> None:
    assert {stream["name"] for stream in bus.STREAMS} == STREAMS
    assert {name.partition("_")[2] for name in STREAMS if "_" in name} == BUCKETS
    assert {route.subject.partition(".")[0] for route in ROUTES} | {"live"} == ROOTS


@pytest.mark.parametrize("service", Service)
def test_what_a_service_of_one_cell_may_do_shares_nothing_with_another_cell(service: Service) -> None:
    everywhere = {"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$SYS.REQ.USER.INFO"}
    one, other = permissions(service, B), permissions(service, Cell("c"))
    for shared in (set(one.publish) & set(other.publish), set(one.subscribe) & set(other.subscribe)):
        assert {subject for subject in shared if not subject.startswith("$SRV.")} <= everywhere


@pytest.mark.parametrize("name", ["evt", "B", "a.b", "a_b", "x" * 17, ">"])
def test_a_name_that_could_be_mixed_up_is_none(name: str) -> None:
    assert not re.fullmatch(NAME, name)

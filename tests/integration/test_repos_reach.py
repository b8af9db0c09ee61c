"""Hosts inside: another user's task gets no git process to them, and learns nothing of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.repo import CheckRepository, RepositoryKnown
from protocol.routes import Service
from services.bus import Refused
from services.repos.address import parse
from services.repos.cache import list_remote
from services.repos.git import Git, GitFailed, Remote
from services.repos.reach import http_settings
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.repos_house import git_server, make_origin, world

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as started:
        yield started


async def test_an_open_port_inside_looks_like_a_closed_one_and_is_never_asked(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path) as server:
        port = server.host.partition(":")[2]
        async with world(house, tmp_path / "data") as at:
            reasons = set()
            for host in (server.host, f"localhost:{port}", f"2130706433:{port}", "127.0.0.1:1", "name.invalid:1"):
                for url in (f"http://{host}/{origin.name}", f"https://{host}/x", f"ssh://{host}/x"):
                    asked = CheckRepository(user="eve", repository=url)
                    with pytest.raises(Refused) as refused:
                        await at.gateway.ask(Service.REPOS, asked, RepositoryKnown)
                    reasons.add((refused.value.code, refused.value.reason.replace(host, "HOST")))
                    with pytest.raises(Refused) as refused:
                        await at.resolve(url, is_owner=False)
                    reasons.add((refused.value.code, refused.value.reason.replace(host, "HOST")))
            assert len(reasons) == 1
            assert server.seen_authorizations == []
            # The owner may, and what the owner has got is still nobody else's.
            await at.resolve(server.url(origin))
            with pytest.raises(Refused, match="no public address"):
                await at.resolve(server.url(origin), task="t2", is_owner=False)


async def test_another_users_task_is_led_nowhere_else_by_a_redirect(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path) as outside, git_server(tmp_path) as inside:
        outside.redirect_to = f"http://{inside.host}"
        async with world(house, tmp_path / "data", internal_hosts=outside.host) as at:
            with pytest.raises(Refused, match="redirects to an address that is not allowed"):
                await at.resolve(outside.url(origin), is_owner=False)
            assert inside.seen_authorizations == []
            assert await at.resolve(outside.url(origin))


async def test_git_asks_no_name_server_and_no_proxy_again(tmp_path: Path) -> None:
    """Real git: the name does not exist, the proxy does not answer, and still it comes to the address it was given."""
    origin = make_origin(tmp_path / "origin.git")
    home = tmp_path / "home"
    home.mkdir()
    git = Git(home, {"PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:1"})
    await git.check()
    with git_server(tmp_path) as server:
        address = parse(f"http://name.invalid:{server.host.partition(':')[2]}/{origin.name}")
        for addresses in ((), ("127.0.0.1",)):
            remote = Remote(
                url=address.url,
                protocols=address.protocols,
                place=address.host,
                settings=http_settings(address, addresses),
            )
            if not addresses:
                with pytest.raises(GitFailed):
                    await list_remote(git, remote)
                continue
            assert (await list_remote(git, remote)).head == "refs/heads/main"


async def test_ssh_is_told_the_address(house: NatsHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real git with a program in ssh's place that notes what it was given and runs the other side here."""
    origin = make_origin(tmp_path / "origin.git")
    noted = tmp_path / "noted"
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{noted}\nfor last; do :; done\nexec sh -c "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    async with world(house, tmp_path / "data") as at:
        await at.resolve(f"ssh://140.82.121.3:2222{origin}", is_owner=False)
        assert "-o HostName=140.82.121.3 -o HostKeyAlias=[140.82.121.3]:2222 " in noted.read_text()
        noted.unlink()
        await at.resolve(f"ssh://140.82.121.3:2222{origin}")
        assert "HostName" not in noted.read_text()

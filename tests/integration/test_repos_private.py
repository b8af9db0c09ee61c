"""Private repositories: the credential reaches its own host, and nothing else ever sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.text import TextReceiveStream

from protocol.repo import (
    AskSealingKey,
    CheckRepository,
    LendSecrets,
    Publish,
    PublishDone,
    RepositoryKnown,
    SealingKey,
    SecretsLent,
)
from protocol.routes import Service, Stream
from protocol.secret import bound_to
from protocol.task import AttemptClaimed
from protocol.user import HostRemoved, SecretSet
from services import envelope, nats_server
from services.bus import Refused, connect
from services.runner.setup import borrow_secrets
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.repos_house import (
    Asker,
    add_commit,
    bundle,
    command_lines,
    git,
    git_server,
    make_origin,
    world,
)

pytestmark = pytest.mark.anyio
TOKEN = "ghp_s3cretT0kenThatMustNotBeSeen"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as started:
        yield started


async def test_the_owners_token_opens_a_private_repository_both_ways(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path, TOKEN) as server:
        async with world(house, tmp_path / "data") as at:
            await at.add_host(server.host, TOKEN)
            url = server.url(origin)
            base = (await at.resolve(url)).commit
            workspace = Path((await at.prepare(url, base)).path)
            commit = add_commit(workspace, {"a": "1"})
            await at.runner.put_blob("bundle", bundle(workspace, commit, base))
            asked = Publish(
                task="t1",
                repository=url,
                base_commit=base,
                commit=commit,
                blob="bundle",
                branch="errand/t1-work",
                is_owner=True,
            )
            done = await at.runner.ask(Service.REPOS, asked, PublishDone, timeout_seconds=30)
            assert done.published.pushed_to == url
            assert git(origin, "rev-parse", "errand/t1-work") == commit
    assert not files_with(TOKEN, tmp_path)


async def set_secret(at: Asker, name: str, value: str, repository: str = "", *, user: str = "owner") -> None:
    """What the gateway and the scheduler do with `errand secret set`."""
    key = await at.gateway.ask(Service.REPOS, AskSealingKey(), SealingKey)
    sealed = envelope.seal(key.public_key, bound_to(user, name, repository), value)
    await at.decide(SecretSet(name=name, sealed=sealed, repository=repository), user=user)


async def test_secrets_are_lent_to_the_set_up_of_an_attempt_that_runs_and_to_nobody_else(
    house: NatsHouse, tmp_path: Path
) -> None:
    origin = make_origin(tmp_path / "app", {".errand/setup.sh": "true\n"})
    digests = []
    async with world(house, tmp_path / "data") as at:
        for task, user in (("t1", "owner"), ("t2", "uother")):
            await at.submit(user, task, origin, AttemptClaimed(attempt=1, turn=1, runner="r", request="q"))
        base = (await at.resolve(origin)).commit
        for value, repository in ((TOKEN, ""), (f"{TOKEN}2", str(origin)), (TOKEN, "")):
            digests.append(await digest_of(at, origin, base, len(digests) + 1))
            await set_secret(at, "TOKEN", value, repository)
        await set_secret(at, "OTHERS", "value-of-another-user", user="uother")
        digests.append(await digest_of(at, origin, base, 4))
        assert (digests[0], len(set(digests))) == ("", 3), "what is for all counts only where nothing is for it alone"
        assert await borrow_secrets(at.runner, "t1", 1) == {"TOKEN": f"{TOKEN}2"}
        assert await borrow_secrets(at.runner, "t2", 1) == {"OTHERS": "value-of-another-user"}
        for task, attempt in (("t1", 2), ("t3", 1), ("*", 1)):
            with pytest.raises(Refused, match="an attempt that runs"):
                await borrow_secrets(at.runner, task, attempt)
        key = envelope.public_key(envelope.make_key())
        lent = await at.runner.ask(Service.REPOS, LendSecrets(task="t1", attempt=1, public_key=key), SecretsLent)
        assert TOKEN not in "".join(lent.sealed.values())
        await at.decide(SecretSet(name="BROKEN", sealed="x"))
        with pytest.raises(Refused, match="`errand secret set BROKEN`"):
            await borrow_secrets(at.runner, "t1", 1)
    assert not files_with(TOKEN, tmp_path)


async def digest_of(at: Asker, origin: Path, commit: str, attempt: int) -> str:
    found = (await at.prepare(origin, commit, attempt=attempt)).setup
    assert found is not None
    return found.secrets


@pytest.mark.parametrize("shared", [True, False])
async def test_another_users_task_gets_a_private_repository_only_where_the_owner_shares_it(
    house: NatsHouse, tmp_path: Path, shared: bool
) -> None:
    """Also while the owner's own copy is fresh."""
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path, TOKEN) as server:
        async with world(house, tmp_path / "data", internal_hosts=server.host) as at:
            await at.add_host(server.host, TOKEN, shared=shared)
            url = server.url(origin)
            base = (await at.resolve(url)).commit
            if shared:
                assert (await at.resolve(url, task="t2", is_owner=False)).commit == base
                assert (await at.prepare(url, base, task="t2")).path
                return
            await at.submit("eve", "t3", url)
            publish = Publish(
                task="t2", repository=url, base_commit=base, commit=base, blob="", branch="errand/t2-work"
            )
            no_entry = pytest.raises(Refused, match=r"no such public repository.*--shared")
            with no_entry:
                await at.resolve(url, task="t2", is_owner=False)
            with no_entry:
                await at.prepare(url, base, task="t3")
            with no_entry:
                await at.runner.ask(Service.REPOS, publish, PublishDone)
            with no_entry:
                await at.gateway.ask(Service.REPOS, CheckRepository(user="eve", repository=url), RepositoryKnown)


async def test_the_token_is_in_no_command_line_and_no_log_line(house: NatsHouse, tmp_path: Path) -> None:
    """The service as its own process, looked at while git talks to the host."""
    origin = make_origin(tmp_path / "origin.git")
    data = tmp_path / "data"
    data.mkdir()
    environment = {
        **os.environ,
        "ERRAND_DATA": str(data),
        "ERRAND_NATS_URL": house.url,
        "ERRAND_NATS_PASSWORD_FILE": str(nats_server.password_file(house.data, Service.REPOS)),
        "ERRAND_LOG_LEVEL": "debug",
    }
    logged: list[str] = []
    started = anyio.Event()
    with git_server(tmp_path, TOKEN) as server:
        server.hold.clear()
        async with (
            connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as scheduler,
            connect(house.bus_config(Service.RUNNER), Service.RUNNER) as runner,
            connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
            anyio.create_task_group() as group,
        ):
            await scheduler.make_streams()
            await scheduler.purge(Stream.TASKS, "evt.>")
            async with await anyio.open_process([sys.executable, "-m", "services.repos"], env=environment) as process:
                group.start_soon(keep_log, process, logged, started)
                await started.wait()
                asker = Asker(data, runner, gateway, scheduler)
                await asker.add_host(server.host, TOKEN)
                async with anyio.create_task_group() as asking:
                    asking.start_soon(asker.resolve, server.url(origin))
                    await asyncio.to_thread(server.held.wait)
                    seen = command_lines()
                    server.hold.set()
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
    log = "".join(logged)
    # The look was worth something: git was there to be seen.
    assert any("ls-remote" in line and server.host in line for line in seen)
    assert not [line for line in seen if TOKEN in line]
    assert "mirror_fetched" in log
    assert TOKEN not in log
    assert not files_with(TOKEN, tmp_path)


async def keep_log(process: anyio.abc.Process, lines: list[str], started: anyio.Event) -> None:
    """Read what the service logs to its end; set `started` when it says so."""
    assert process.stderr is not None
    async for line in TextReceiveStream(process.stderr):
        lines.append(line)
        if "started" in line:
            started.set()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "no such public repository.*errand host add"),
        ("wrong", "refused the credential.*errand host add"),
    ],
)
async def test_a_missing_or_wrong_token_is_explained(house: NatsHouse, tmp_path: Path, given: str, words: str) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path, TOKEN) as server:
        async with world(house, tmp_path / "data", internal_hosts=server.host) as at:
            if given:
                await at.add_host(server.host, given, shared=True)
            asked = CheckRepository(user="u", repository=server.url(origin))
            with pytest.raises(Refused, match=words) as refused:
                await at.gateway.ask(Service.REPOS, asked, RepositoryKnown)
            assert refused.value.code == "refused"
            with pytest.raises(Refused, match=words) as refused:
                await at.resolve(server.url(origin))
            assert "wrong" not in refused.value.reason


async def test_a_token_is_sent_to_no_other_host(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path, TOKEN) as mine, git_server(tmp_path, "other") as theirs:
        async with world(house, tmp_path / "data") as at:
            await at.add_host(mine.host, TOKEN)
            with pytest.raises(Refused):
                await at.resolve(theirs.url(origin))
            asked_directly = len(theirs.seen_authorizations)
            mine.redirect_to = f"http://{theirs.host}"
            with pytest.raises(Refused):
                await at.resolve(mine.url(origin))
    assert any(mine.seen_authorizations)
    assert len(theirs.seen_authorizations) > asked_directly > 0
    assert not any(theirs.seen_authorizations)


async def test_a_token_that_was_taken_away_is_used_no_more(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path, TOKEN) as server:
        async with world(house, tmp_path / "data", freshness_seconds=0) as at:
            await at.add_host(server.host, TOKEN)
            await at.resolve(server.url(origin))
            await at.decide(HostRemoved(host=server.host))
            with pytest.raises(Refused, match="errand host add"):
                await at.resolve(server.url(origin))


async def test_an_envelope_for_another_host_is_not_opened(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path, TOKEN) as server:
        async with world(house, tmp_path / "data") as at:
            await at.add_host(server.host, TOKEN, sealed_for="github.com")
            with pytest.raises(Refused, match="cannot be opened"):
                await at.resolve(server.url(origin))
    assert server.seen_authorizations == []


async def test_an_ssh_key_lies_on_no_disk_and_only_while_it_is_used(
    house: NatsHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real git with a program in ssh's place that notes what it was given and runs the other side here."""
    origin = make_origin(tmp_path / "origin.git")
    noted = tmp_path / "noted"
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'for word; do case $word in IdentityFile=*) key=$(echo "${word#*=}" | tr -d \'"\');; esac; last=$word; done\n'
        f'{{ stat -c "%a %n" "$key" "$(dirname "$key")"; cat "$key"; echo "$@"; }} >{noted}\n'
        'exec sh -c "$last"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    async with world(house, tmp_path / "data") as at:
        await at.add_host("git.example.org", "-----BEGIN KEY-----\nabc", kind="ssh_key")
        await at.resolve(f"ssh://git.example.org{origin}")
    file_line, folder_line, *key, arguments = noted.read_text().splitlines()
    assert key == ["-----BEGIN KEY-----", "abc"]
    mode, _, path = file_line.partition(" ")
    assert (mode, folder_line.split()[0]) == ("600", "700")
    assert path.startswith("/dev/shm/")
    assert not Path(path).exists()
    for option in ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new", "-F /dev/null"):
        assert option in arguments
    assert "git@git.example.org" in arguments


async def test_a_token_for_an_ssh_address_is_explained(house: NatsHouse, tmp_path: Path) -> None:
    async with world(house, tmp_path / "data") as at:
        await at.add_host("git.example.org", TOKEN)
        with pytest.raises(Refused, match="an ssh address cannot use"):
            await at.resolve("git@git.example.org:a/b")


def files_with(word: str, folder: Path) -> list[str]:
    done = subprocess.run(["grep", "-rlF", word, str(folder)], capture_output=True, text=True)
    return done.stdout.splitlines()

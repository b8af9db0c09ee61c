"""A repository's set-up in both drivers: run once, kept, used again, with secrets that nothing keeps."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from sandbox.bubblewrap import Bubblewrap
from sandbox.config import DOCKER_HOST, Config, limits, setup_rules
from sandbox.contract import Driver, ExecResult, LendSecrets, SandboxSpec, SandboxUnavailable, Setup, SetupFailed
from sandbox.docker import Docker, connect
from sandbox.drivers import Drivers
from sandbox.egress.policy import Egress, parse
from sandbox.image import own_name
from sandbox.owners import Owners
from sandbox.prepared_images import KEPT_IMAGES
from sandbox.register import Register
from sandbox.warm import Warm
from tests.contract.test_sandbox import skip_unless_available
from tests.integration.repos_house import command_lines

pytestmark = pytest.mark.anyio
HOST = os.environ.get("DOCKER_HOST") or DOCKER_HOST
CONFIG = Config(sandbox_memory_mib=512, sandbox_tmp_mib=64, sandbox_setup_seconds=20, sandbox_setup_mib=8)
SECRET = "s3cret-of-the-set-up/+="
SCRIPT = ".errand/setup.sh"
ROOT = Path(__file__).resolve().parents[2]


class Seen:
    """What the user sees of a set-up."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.said = ""
        self.notices: list[str] = []
        self.ended: list[tuple[int | None, str]] = []
        self.began = anyio.Event()

    async def begins(self, what: str) -> None:
        self.begun.append(what)
        self.began.set()

    async def output(self, text: str) -> None:
        self.said += text

    async def notice(self, text: str) -> None:
        self.notices.append(text)

    async def ends(self, result: ExecResult, reason: str) -> None:
        self.ended.append((result.exit_code, reason))


class Repository:
    """Whose set-up it is: makes fresh workspaces at one commit, and tells the driver of it."""

    def __init__(self, folder: Path, script: str, files: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._files = {".gitignore": "node_modules/\n*.cache\n", SCRIPT: script, "app.py": "x = 1\n", **(files or {})}
        self._made = 0

    def workspace(self) -> Path:
        self._made += 1
        place = self._folder / f"workspace_{self._made}"
        for name, text in self._files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "first")):
            settings = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main")
            subprocess.run(["git", *settings, *words], cwd=place, check=True, capture_output=True)
        return place

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[SandboxSpec]:
        yield replace(self.spec("setup"), attempt=0)

    def spec(self, task: str, image: str = "") -> SandboxSpec:
        return SandboxSpec(task=task, attempt=1, workspace=self.workspace(), image=image)

    async def prepare(self, driver: Driver, seen: Seen | None = None, **changes: Any) -> str:
        setup = replace(Setup(repository="https://host/app", inputs="inputs", script=SCRIPT), **changes)
        return await driver.prepare(setup, self.borrow, seen or Seen())

    async def says(self, driver: Driver, image: str, command: str) -> str:
        """What a command says in a new sandbox of a task."""
        sandbox = await driver.start(self.spec("task_1", image))
        try:
            return (await sandbox.exec(command)).output
        finally:
            await sandbox.stop()


@asynccontextmanager
async def new_driver(name: str, data: Path, config: Config = CONFIG) -> AsyncIterator[Driver]:
    if name == "bubblewrap":
        driver = Bubblewrap(
            limits(config), Register(Owners(data, "me"), "bubblewrap", 0), folder=data, rules=setup_rules(config)
        )
        await skip_unless_available(driver)
        yield driver
        await driver.close()
        return
    docker = connect(config, HOST, data, "me")
    try:
        await skip_unless_available(docker)
        yield docker
    finally:
        for image in images_of(data):
            docker_cli("rmi", "--force", image)
        await docker.close()


def docker_cli(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def images_of(data: Path) -> list[str]:
    label = f"label=errand.prepared-by={(data / 'installation').read_text().strip()}"
    return docker_cli("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", label).split()


@pytest.fixture(params=["bubblewrap", "docker"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    async with new_driver(request.param, tmp_path / "data") as driver:
        yield driver


async def test_what_a_set_up_leaves_is_there_in_every_later_sandbox_and_it_runs_once(
    driver: Driver, tmp_path: Path
) -> None:
    script = """set -e
echo installing
mkdir -p ~/.local/bin node_modules/left /opt/errand/bin
printf '#!/bin/sh\\necho tool\\n' > ~/.local/bin/tool; chmod 700 ~/.local/bin/tool
printf '#!/bin/sh\\necho big\\n' > /opt/errand/bin/big; chmod 711 /opt/errand/bin/big
echo module > node_modules/left/index.js; ln -s left node_modules/link
echo x = 2 > app.py; echo new > untracked
"""
    repository = Repository(tmp_path, script)
    seen = Seen()
    image = await repository.prepare(driver, seen)
    assert (seen.begun, seen.said, seen.ended) == ([SCRIPT], "installing\n", [(0, "")])
    assert seen.notices == [
        "What the set-up changed in files that git has is not kept: app.py",
        "New files of the set-up that git does not ignore are not kept: untracked",
    ]
    look = "tool; big; cat node_modules/link/index.js app.py; git status --porcelain; stat -c %a ~/.local/bin/tool"
    for _ in range(2):
        assert await repository.says(driver, image, look) == "tool\nbig\nmodule\nx = 1\n700\n"
    writes = "echo more >> node_modules/left/index.js && rm ~/.local/bin/tool && echo written; touch /opt/errand/x 2>&1"
    said = await repository.says(driver, image, writes)
    assert said.startswith("written\n")
    assert "Read-only file system" in said
    assert await repository.says(driver, image, look) == "tool\nbig\nmodule\nx = 1\n700\n"
    again = Seen()
    assert await repository.prepare(driver, again) == image
    assert (again.begun, again.said, again.ended) == ([], "", [])


def lending(**secrets: str) -> LendSecrets:
    async def lend() -> Mapping[str, str]:
        return secrets

    return lend


async def test_another_input_makes_it_anew_and_only_then_secrets_are_asked_for(driver: Driver, tmp_path: Path) -> None:
    repository = Repository(tmp_path, "echo done > ~/result")
    lent: list[str] = []

    async def lend() -> Mapping[str, str]:
        lent.append("once more")
        return {"TOKEN": SECRET}

    images = [await repository.prepare(driver, inputs=inputs, secrets=lend) for inputs in ("a", "a", "b", "a", "b")]
    assert (len(set(images)), len(lent)) == (2, 2)


async def test_one_that_fails_or_takes_too_long_says_so_with_its_last_words_and_is_not_kept(tmp_path: Path) -> None:
    quick = Config(sandbox_memory_mib=512, sandbox_tmp_mib=64, sandbox_setup_seconds=1, sandbox_setup_mib=1)
    for name in ("bubblewrap", "docker"):
        async with new_driver(name, tmp_path / name, quick) as driver:
            for script, reason in (
                ("echo broken >&2; exit 3", "(.errand/setup.sh) ended with exit code 3. It said last:\nbroken"),
                ("head -c 1G /dev/zero > /tmp/x; echo fine", "exit code 0, but /tmp is full: it holds 64 MiB, so"),
                ("set -e\r\n# x\r\n", "has Windows line ends (CRLF), which a shell does not understand. Add the line"),
                ("echo slow; sleep 60", "was not done after 1 s (ERRAND_SANDBOX_SETUP_SECONDS). It said last:\nslow"),
                ("head -c 2M /dev/zero > ~/large", "more than the 1 MiB that are kept (ERRAND_SANDBOX_SETUP_MIB)"),
            ):
                folder = tmp_path / f"{name}_{zlib.crc32(script.encode())}"
                repository = Repository(folder, script)
                for _ in range(2):
                    seen = Seen()
                    with pytest.raises(SetupFailed) as failure:
                        await repository.prepare(driver, seen)
                    assert reason in str(failure.value)
                    assert [why for _, why in seen.ended] == [str(failure.value)]
                    assert seen.begun == [SCRIPT]


async def test_a_secret_is_in_the_scripts_environment_and_nowhere_afterwards(driver: Driver, tmp_path: Path) -> None:
    script = 'echo "first $TOKEN"; printf "%s" "$TOKEN" | head -c 9; sleep 0.2; printf "%s" "$TOKEN" | tail -c +10; '
    repository = Repository(tmp_path, script + 'test "${#TOKEN}" = 22 && (exec -a "$TOKEN" sleep 100) & sleep 0.1')
    seen = Seen()
    image = await repository.prepare(driver, seen, secrets=lending(TOKEN=SECRET))
    assert seen.said == "first [TOKEN]\n[TOKEN]"
    # The pattern does not match the command that searches.
    found = f"'[s]{SECRET[1:]}'"
    search = f"env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; grep -r {found} /tmp /var/tmp /opt /run /workspace"
    assert await repository.says(driver, image, f"{{ {search}; }} 2>/dev/null | grep -ac {found}") == "0\n"
    if isinstance(driver, Docker):
        for words in (["history", "--no-trunc", image], ["inspect", image]):
            assert SECRET not in docker_cli(*words)
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


async def test_a_set_up_that_leaves_a_secret_is_refused_with_its_name_and_place(driver: Driver, tmp_path: Path) -> None:
    for script, place in (
        ('echo "//registry/:_authToken=$TOKEN" > ~/.npmrc', "~/.npmrc"),
        ('mkdir node_modules; echo "user:$TOKEN" | base64 > node_modules/auth', "/workspace/node_modules/auth"),
        ('head -c 1048570 /dev/zero > /opt/errand/x; echo "$TOKEN" >> /opt/errand/x', "/opt/errand/x"),
        ('mkdir ~/b; ln -s "x$TOKEN" ~/b/link', "~/b/link"),
    ):
        repository = Repository(tmp_path / place.replace("/", "_"), script)
        seen = Seen()
        with pytest.raises(SetupFailed, match=f"left the secret TOKEN in {place}, where") as failure:
            await repository.prepare(driver, seen, secrets=lending(TOKEN=SECRET))
        assert SECRET not in str(failure.value)
        assert [why for _, why in seen.ended] == [str(failure.value)]


@pytest.mark.parametrize("name", ["bubblewrap", "docker"])
@pytest.mark.parametrize("moved", [".git/errand-setup", ".git"])
async def test_a_link_in_the_place_of_the_folder_that_is_kept_leads_nowhere(
    name: str, moved: str, tmp_path: Path
) -> None:
    (tmp_path / "host" / "errand-setup").mkdir(parents=True)
    secret = tmp_path / "host" / "errand-setup" / "credentials"
    secret.touch(0o600)
    leads = secret.parent if moved == ".git/errand-setup" else secret.parent.parent
    swap = f"mv {moved} {moved}.away && ln -s {leads} {moved} && echo swapped"
    # On a disk of its own the workspace's folder could not be written to.
    async with new_driver(name, tmp_path / "data", replace(CONFIG, sandbox_disk_mib=0)) as driver:
        seen = Seen()
        with pytest.raises(SetupFailed):
            await Repository(tmp_path, swap).prepare(driver, seen)
        assert seen.said == "swapped\n"
    assert secret.stat().st_mode & 0o777 == 0o600


async def test_what_is_kept_is_listed_and_forgotten_and_goes_also_when_nothing_new_is_kept(
    driver: Driver, tmp_path: Path
) -> None:
    assert isinstance(driver, Bubblewrap | Docker)
    assert driver.setups is not None
    repository = Repository(tmp_path, "head -c 1000 /dev/zero > ~/result")
    image = await repository.prepare(driver)
    (kept,) = await driver.setups.kept()
    assert (kept.repository, kept.what, kept.size_bytes > 1000) == ("https://host/app", SCRIPT, True)
    sandbox = await driver.start(repository.spec("task_1", image))
    assert not await driver.setups.forget(kept.key)
    await sandbox.stop()
    assert await driver.setups.forget(kept.key)
    assert await driver.setups.kept() == []
    await repository.prepare(driver, seen := Seen())
    assert seen.begun == [SCRIPT]
    for mark in (tmp_path / "data" / "setups").glob("*.used"):
        os.utime(mark, (0, 0))
    await driver.sweep()
    assert await driver.setups.kept() == []


@pytest.mark.parametrize("name", ["bubblewrap", "docker"])
async def test_the_command_line_lists_and_forgets_what_is_kept_while_the_runner_lives(
    name: str, tmp_path: Path
) -> None:
    async def errand(*words: str) -> tuple[int, str]:
        environment = {**os.environ, "ERRAND_DATA": str(tmp_path), "ERRAND_SANDBOX": name}
        command = [sys.executable, "-m", "services.cli", "setup", *words]
        done = await anyio.run_process(command, check=False, cwd=ROOT, env=environment, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout.decode()

    async with new_driver(name, tmp_path / "sandbox") as driver:
        repository = Repository(tmp_path / "repository", "echo x > ~/result")
        image = await repository.prepare(driver)
        sandbox = await driver.start(repository.spec("task_1", image))
        key = image.removeprefix(KEPT_IMAGES)[:12]
        code, said = await errand("ls")
        assert (code, said.splitlines()[1].split("\t")[:3]) == (0, [key, "https://host/app", SCRIPT]), said
        code, said = await errand("forget", key)
        assert (code, said) == (1, f"{key} is in use by a sandbox: try again when its task has ended.\n")
        await sandbox.stop()
        assert await errand("forget", "--repo", "https://host/app") == (0, f"{key} is forgotten.\n")
        code, said = await errand("forget", key)
        assert (code, f"No set-up that is kept begins with '{key}'" in said) == (1, True)


async def test_two_that_want_the_same_at_once_run_it_once(driver: Driver, tmp_path: Path) -> None:
    repository = Repository(tmp_path, "sleep 0.5; echo ran >> ~/runs")
    seen = [Seen(), Seen()]
    images: set[str] = set()

    async def want(number: int) -> None:
        images.add(await repository.prepare(driver, seen[number]))

    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(want, number)
    assert len(images) == 1
    assert sorted(one.said for one in seen) == ["", ""]
    assert [one.ended for one in seen] == [[(0, "")], [(0, "")]]
    assert repository._made == 1
    assert await repository.says(driver, images.pop(), "cat ~/runs") == "ran\n"


async def test_one_that_is_cut_off_leaves_nothing_and_is_made_anew(driver: Driver, tmp_path: Path) -> None:
    slow = Repository(tmp_path / "slow", "echo begun; sleep 100")
    seen = Seen()
    async with anyio.create_task_group() as group:
        group.start_soon(slow.prepare, driver, seen)
        with anyio.fail_after(20):
            await seen.began.wait()
            while not seen.said:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    if isinstance(driver, Docker):
        assert containers_of(tmp_path / "data") == ""
    quick = Repository(tmp_path / "quick", "echo fine > ~/result")
    assert await quick.says(driver, await quick.prepare(driver), "cat ~/result") == "fine\n"


@contextmanager
def left_runner(name: str, data: Path, folder: Path, script: str, until: str) -> Iterator[None]:
    """One that is killed when it says `until`."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.integration.left_setup", name, data, folder, script]
    path = os.pathsep.join([str(ROOT), *sys.path])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}) as runner:
        assert runner.stdout is not None
        said = [line.strip() for line in iter(runner.stdout.readline, f"{until}\n")]
        runner.kill()
        assert runner.wait() == -signal.SIGKILL, said
        yield


@asynccontextmanager
async def next_driver(name: str, data: Path) -> AsyncIterator[Bubblewrap | Docker]:
    """Of the runner that comes after it, over the same data folder."""
    driver = Drivers(Config(sandbox=name, sandbox_memory_mib=512, sandbox_tmp_mib=64), data, HOST)  # type: ignore[arg-type]
    try:
        await driver.look()
        assert isinstance(driver.driver, Warm)
        yield driver.driver.driver
    finally:
        for image in images_of(data / "sandbox") if name == "docker" else ():
            docker_cli("rmi", "--force", image)
        await driver.close()


async def test_a_runner_that_is_killed_in_a_set_up_leaves_nothing_and_the_next_one_makes_it(
    driver: Driver, tmp_path: Path
) -> None:
    data, word = tmp_path / "killed", f"sleep 3{os.getpid()}"
    with left_runner(driver.name, data, tmp_path / "left", f"echo begun; {word}", "begun"):
        pass
    async with next_driver(driver.name, data) as following:
        with anyio.fail_after(20):
            while any(word in line for line in command_lines()):
                await anyio.sleep(0.05)
            while isinstance(following, Docker) and containers_of(data / "sandbox"):
                await following.sweep()
        assert following.setups is not None
        assert await following.setups.kept() == []
        repository = Repository(tmp_path / "again", "echo fine > ~/result")
        assert await repository.says(following, await repository.prepare(following), "cat ~/result") == "fine\n"


async def test_what_a_taken_over_sandbox_started_from_is_not_removed(driver: Driver, tmp_path: Path) -> None:
    data = tmp_path / "killed"
    with left_runner(driver.name, data, tmp_path / "left", "echo big > /opt/errand/big", "started"):
        pass
    async with next_driver(driver.name, data) as following:
        assert following.setups is not None
        (kept,) = await following.setups.kept()
        assert not await following.setups.forget(kept.key), "its sandbox may be taken over yet"
        sandbox = await following.reattach(SandboxSpec(task="task_1", attempt=2, workspace=tmp_path), previous=1)
        assert sandbox is not None
        assert not await following.setups.forget(kept.key)
        assert (await sandbox.exec("cat /opt/errand/big")).output == "big\n"
        await sandbox.stop()
        assert await following.setups.forget(kept.key)


def containers_of(data: Path) -> str:
    label = f"label=errand.installation={(data / 'installation').read_text()}"
    return docker_cli("ps", "--all", "--quiet", "--filter", label)


async def test_what_was_not_used_for_longest_goes_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    few = Config(sandbox_memory_mib=512, sandbox_tmp_mib=64, sandbox_prepared=1)
    for name in ("bubblewrap", "docker"):
        repository = Repository(tmp_path / name / "repository", "echo $ERRAND_SETUP > ~/result")
        async with new_driver(name, tmp_path / name / "data", few) as driver:
            first = await repository.prepare(driver)
            sandbox = await driver.start(repository.spec("task_1", first))
            second = await repository.prepare(driver, inputs="others")
            assert await repository.prepare(driver, seen := Seen()) == first
            assert not seen.begun
            await sandbox.stop()
            third = await repository.prepare(driver, inputs="more")
            for inputs, image, is_gone in (("inputs", first, True), ("others", second, True), ("more", third, False)):
                seen = Seen()
                assert await repository.prepare(driver, seen, inputs=inputs) == image
                assert bool(seen.begun) == is_gone, (name, inputs)
                if is_gone:
                    break
            assert not image.startswith(KEPT_IMAGES) or len(images_of(tmp_path / name / "data")) == 1


async def test_the_image_of_a_repository_is_the_ground_where_the_engine_has_it(tmp_path: Path) -> None:
    async with new_driver("docker", tmp_path / "data") as driver:
        assert isinstance(driver, Docker)
        name = f"errand-test:{tmp_path.name}"
        docker_cli("tag", driver.image.name, name)
        try:
            seen = Seen()
            repository = Repository(tmp_path / "repository", "true")
            ground = await repository.prepare(driver, seen, script="", image=name)
            assert (ground.partition(":")[0], seen.begun, seen.notices) == ("sha256", [], [])
            assert await repository.says(driver, ground, "echo fine") == "fine\n"
            assert await repository.prepare(driver, seen, script="", image="no/such:1") == ""
            assert "`docker pull no/such:1` there allows it" in seen.notices[0]
        finally:
            docker_cli("rmi", name)


async def test_what_a_set_up_left_is_no_ground_for_another_repository_by_name_or_by_id(tmp_path: Path) -> None:
    async with new_driver("docker", tmp_path / "data") as driver:
        private = await Repository(tmp_path / "a", "echo private > /opt/errand/notes").prepare(driver)
        image_id = docker_cli("inspect", "--format", "{{.Id}}", private).strip()
        own_id = docker_cli("inspect", "--format", "{{.Id}}", own_name()).strip()
        other = Repository(tmp_path / "b", "")
        for named, why_not in (
            (private, "is what a set-up left"),
            (f"docker.io/library/{private}", "is what a set-up left"),
            (image_id.removeprefix("sha256:")[:12], "is what a set-up left"),
            (own_id, "is an id"),
            (own_id.removeprefix("sha256:")[:12], "is an id"),
        ):
            seen = Seen()
            image = await other.prepare(driver, seen, image=named, script="")
            assert image == "", named
            assert f"The repository names the image {named}, which {why_not}, so Errand's own is" in seen.notices[0]


async def test_a_dockerfile_is_built_once_where_the_operator_allows_it(tmp_path: Path) -> None:
    allowed = Config(sandbox_memory_mib=512, sandbox_tmp_mib=64, sandbox_dockerfiles="offline")
    dockerfile = f"FROM {own_name()}\nUSER root\nCOPY tool /usr/bin/tool\nRUN chmod 755 /usr/bin/tool\n"
    files = {".errand/Dockerfile": dockerfile, ".errand/tool": "#!/bin/sh\necho tool\n"}
    repository = Repository(tmp_path / "repository", "tool > ~/result", files)
    async with new_driver("docker", tmp_path / "data", allowed) as driver:
        seen = Seen()
        image = await repository.prepare(driver, seen, dockerfile=".errand/Dockerfile")
        assert seen.begun == [".errand/Dockerfile", SCRIPT]
        assert "COPY tool /usr/bin/tool" in seen.said
        assert await repository.says(driver, image, "tool; cat ~/result; id -u | grep -c '^0$'") == "tool\ntool\n0\n"
        again = Seen()
        assert await repository.prepare(driver, again, dockerfile=".errand/Dockerfile") == image
        assert again.begun == []
        files[".errand/Dockerfile"] = f"FROM {own_name()}\nRUN echo broken; exit 5\n"
        broken = Repository(tmp_path / "broken", "true", files)
        with pytest.raises(SetupFailed, match=r"\.errand/Dockerfile could not be built: .*non-zero code: 5"):
            await broken.prepare(driver, dockerfile=".errand/Dockerfile", inputs="broken")
    async with new_driver("docker", tmp_path / "strict") as driver:
        seen = Seen()
        await repository.prepare(driver, seen, script="", dockerfile=".errand/Dockerfile")
        assert seen.begun == []
        assert "ERRAND_SANDBOX_DOCKERFILES" in seen.notices[0]


async def test_a_sandbox_that_waits_for_a_task_has_the_set_up_already(driver: Driver, tmp_path: Path) -> None:
    assert isinstance(driver, Docker | Bubblewrap)
    script = "mkdir node_modules; echo module > node_modules/x; echo old > src/y.cache; echo home > ~/result"
    repository = Repository(tmp_path, script, {"src/x.py": "x"})
    warm = Warm(driver, limit=1, idle_seconds=600)
    image = await repository.prepare(warm)
    async with anyio.create_task_group() as group:
        group.start_soon(warm.keep)
        first = await warm.start(repository.spec("task_1", image))
        await first.stop()
        with anyio.fail_after(20):
            while not warm.spares:
                await anyio.sleep(0.02)
        spare = next(iter(warm.spares.values())).client
        spec = repository.spec("task_2", image)
        second = await warm.start(spec)
        assert second is spare
        look = "cat node_modules/x src/y.cache src/x.py ~/result; git status --porcelain"
        assert (await second.exec(look)).output == "module\nold\nxhome\n"
        await second.stop()
        group.cancel_scope.cancel()


async def test_a_start_that_fails_leaves_nothing_and_lets_go_of_what_it_started_from(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(driver, Bubblewrap | Docker)
    assert driver._register is not None
    assert driver.setups is not None
    repository = Repository(tmp_path, "echo done > ~/result")
    image = await repository.prepare(driver)

    def make_gate(key: str, uid: int) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "gate")

    monkeypatch.setattr(driver._register, "make_gate", make_gate)
    if isinstance(driver, Bubblewrap):
        monkeypatch.setattr(Bubblewrap, "_gate_folder", lambda self, key, uid: make_gate(key, uid))
    words, allowed = parse("example.com")
    egress = Egress(words=words, allowed=allowed)
    with pytest.raises(SandboxUnavailable, match="gate cannot be used: No space left"):
        await driver.start(replace(repository.spec("task_1", image), egress=egress))
    assert list((tmp_path / "data" / "held").glob("*")) == []
    assert await driver.setups.forget(image.rpartition(":")[2])

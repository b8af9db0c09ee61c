"""What a repository says of its sandboxes, read from real commits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from protocol.repo import SetupFound
from services.repos.git import Git
from services.repos.setup import find_setup, read_devcontainer
from tests.integration.repos_house import add_commit, git, make_origin

pytestmark = pytest.mark.anyio
SCRIPT = {".errand/setup.sh": "echo hello\n"}


class Mirror:
    """A bare repository, and what is found at its commits."""

    def __init__(self, folder: Path) -> None:
        self.origin = make_origin(folder / "origin")
        self._work = self.origin.with_name("origin.work")
        (folder / "home").mkdir()
        self._git = Git(folder / "home", os.environ)

    async def found(self, files: Mapping[str, str], *, links: Mapping[str, str] | None = None) -> SetupFound | None:
        """At a commit on top that has these files."""
        for name, target in (links or {}).items():
            (self._work / name).parent.mkdir(exist_ok=True)
            (self._work / name).symlink_to(target)
        commit = add_commit(self._work, files)
        git(self._work, "push", "-q", "--force", str(self.origin), "HEAD:refs/heads/main")
        return await find_setup(self._git, self.origin, commit)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path)


async def test_a_repository_without_a_set_up_has_none(mirror: Mirror) -> None:
    assert await mirror.found({"setup.sh": "echo not this one\n", "package-lock.json": "{}\n"}) is None


async def test_a_set_up_that_is_a_folder_is_said_to_be_none(mirror: Mirror) -> None:
    found = await mirror.found({".errand/setup.sh/first.sh": "echo no\n"})
    assert found is not None
    assert (found.script, found.notices) == ("", (".errand/setup.sh is a folder, and so not heeded: make it a file.",))


async def test_its_digest_changes_with_its_inputs_and_with_nothing_else(mirror: Mirror) -> None:
    first = await mirror.found({**SCRIPT, ".errand/inputs": "# more\ntools/*.sh\n"})
    assert first is not None
    assert (first.script, first.image, first.dockerfile, first.notices) == (".errand/setup.sh", "", "", ())
    assert await mirror.found({"src/one.py": "x = 2\n", "tools/readme.md": "no input\n"}) == first
    seen = {first.inputs}
    for name in (
        ".errand/setup.sh",
        ".errand/helper.py",
        ".devcontainer/features.json",
        "package-lock.json",
        "deep/in/it/requirements-dev.txt",
        ".gitignore",
        "tools/install.sh",
    ):
        now = await mirror.found({name: "changed\n"})
        assert now is not None
        assert now.inputs not in seen, name
        seen.add(now.inputs)


async def test_a_devcontainer_names_an_image_or_a_dockerfile_and_the_rest_is_not_heeded(mirror: Mirror) -> None:
    place = ".devcontainer/devcontainer.json"
    text = '// a comment\n{"image": "node:22", /* and */ "postCreateCommand": "curl http://evil",\n "mounts": ["x"],}\n'
    found = await mirror.found({place: text})
    assert found is not None
    assert (found.image, found.script, found.notices) == ("node:22", "", ())
    for text, said in (
        ("[]", "is not heeded: Expected `object`"),
        ('{"image": "-v /:/host"}', "its image is no image's name"),
        ('{"image": "a/../../containers/x"}', "its image is no image's name"),
        ('{"build": {"dockerfile": "../Dockerfile"}}', "must be a file beside it"),
        ('{"build": {"dockerfile": "missing"}}', "must be a file beside it"),
    ):
        found = await mirror.found({place: text})
        assert found is not None, text
        assert (found.image, found.dockerfile) == ("", "")
        assert said in found.notices[0]
    found = await mirror.found(
        {place: '{"build": {"dockerfile": "Dockerfile"}}', ".devcontainer/Dockerfile": "FROM x\n"}
    )
    assert found is not None
    assert found.dockerfile == ".devcontainer/Dockerfile"
    found = await mirror.found({".errand/Dockerfile": "FROM x\n"})
    assert found is not None
    assert found.dockerfile == ".errand/Dockerfile"


async def test_a_script_that_is_a_link_is_not_run_and_that_is_said(mirror: Mirror) -> None:
    found = await mirror.found({}, links={".errand/setup.sh": "../../../etc/passwd"})
    assert found is not None
    assert (found.script, found.notices) == ("", (".errand/setup.sh is a link, and so not heeded: make it a file.",))


def test_comments_in_strings_stay() -> None:
    assert read_devcontainer('{"image": "a//b", "x": "/* */",}').image == "a//b"

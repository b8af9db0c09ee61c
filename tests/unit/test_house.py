"""The walls of the house: who may import whom, and that every route has its sender, its handler and its page."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.permissions import permissions
from protocol.routes import ROUTES, Route, Service
from services.bus import BusConfig
from services.setting_names import OTHERS
from services.setting_names import SETTINGS as SETTING_NAMES
from services.settings_page import SERVICES as SETTINGS
from services.settings_page import settings

ROOT = Path(__file__).parents[2]
OURS = {"protocol", "gateway", "services", "agents", "sandbox"}
SHARED = {
    "services.actor",
    "services.background",
    "services.clock",
    "services.bus",
    "services.config",
    "services.archive",
    "services.cron",
    "services.envelope",
    "services.github",
    "services.listening",
    "services.log",
    "services.reach",
    "services.secrets_file",
    "services.setting_names",
    "services.setting_words",
}
SERVICES = ("scheduler", "runner", "repos", "history")
LENT = {"sandbox.removal", "sandbox.removal.remove_tree"}
"""Of the sandbox, what services may use that start none: strangers' files reach them, too."""
STANDARD_ONLY = {"protocol": {"msgspec"}}
HOMES = {
    "anthropic": ("agents.models",),
    "docker": ("sandbox",),
    "duckdb": ("services.history",),
    "litestar": ("gateway",),
    "uvicorn": ("gateway", "agents.models"),
    "nats": ("services.bus",),
    "authlib": ("services.github",),
    "cronsim": ("services.cron",),
    "gidgethub": ("services.repos.hosts",),
    "h11": ("sandbox.egress",),
    "publicsuffixlist": ("sandbox.egress",),
}
"""Heavy or replaceable packages, and where alone they may be imported."""


def modules() -> Iterator[tuple[str, Path]]:
    for folder in sorted(OURS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def allowed(importer: str, imported: str) -> bool:
    """DESIGN's import rules for our own packages."""
    top = imported.split(".")[0]
    if within(importer, "protocol"):
        return top == "protocol"
    if within(importer, "agents"):
        return top in ("agents", "protocol")
    if within(importer, "sandbox"):
        return top in ("sandbox", "protocol")
    if within(importer, "gateway"):
        return top in ("gateway", "protocol") or shared(imported)
    for service in SERVICES:
        if within(importer, f"services.{service}"):
            own = within(imported, f"services.{service}") or top == "protocol" or shared(imported)
            return own or imported in LENT or (service == "runner" and top in ("agents", "sandbox"))
    return True


def shared(imported: str) -> bool:
    return imported == "services" or any(within(imported, module) for module in SHARED)


def test_both_images_are_built_on_one_base_that_is_named_by_its_digest() -> None:
    lines = [(ROOT / part / "Dockerfile").read_text().splitlines() for part in ("sandbox", "services")]
    bases = {line for text in lines for line in text if line.startswith("ARG BASE_IMAGE")}
    assert len(bases) == 1
    assert re.fullmatch(r"ARG BASE_IMAGE=debian:bookworm-slim@sha256:[0-9a-f]{64}", bases.pop())
    assert all(not line.startswith("FROM") or line.split()[1] in ("$BASE_IMAGE", "base") for t in lines for line in t)


def test_no_module_imports_what_its_place_forbids() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, path in modules()
        for imported in imports(path)
        if imported.split(".")[0] in OURS and not allowed(name, imported)
    ]
    assert wrong == []


@pytest.mark.parametrize(("package", "homes"), HOMES.items())
def test_a_heavy_package_is_imported_only_where_it_lives(package: str, homes: tuple[str, ...]) -> None:
    strays = [
        name
        for name, path in modules()
        if any(within(imported, package) for imported in imports(path))
        and not any(within(name, home) for home in homes)
    ]
    assert strays == []


def test_there_is_no_room_for_odds_and_ends() -> None:
    assert [name for name, _ in modules() if {"utils", "common", "helpers"} & set(name.split("."))] == []


@pytest.mark.parametrize("generator", ["protocol.generate", "gateway.contract", "services.settings_page"])
def test_what_is_made_from_the_classes_is_fresh(generator: str) -> None:
    done = subprocess.run([sys.executable, "-m", generator, "--check"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def links(page: Path) -> list[Path]:
    """The files that a page links to."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    return [(page.parent / link).resolve() for link in found if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_of_a_page_leads_nowhere(page: Path) -> None:
    assert [str(target) for target in links(page) if not target.exists()] == []


def test_every_page_is_found_from_the_readme() -> None:
    known = links(ROOT / "README.md")
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.resolve() not in known] == []


def test_every_service_that_reads_settings_is_on_their_page() -> None:
    services = {"gateway", *SERVICES}
    reading = {
        path.parent.name
        for name, path in modules()
        if name.endswith(".__main__") and "from_environment(" in path.read_text()
    }
    assert reading == services == set(SETTINGS)


def test_what_a_test_is_told_by_its_environment_is_no_misspelt_setting_to_the_services_that_it_starts() -> None:
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    told = {name for file in files for name in re.findall(r'environ(?:\.get\(|\[)"(ERRAND_\w+)"', file.read_text())}
    assert told <= SETTING_NAMES | OTHERS


def test_every_setting_says_what_it_is() -> None:
    silent = [s.name for config in (BusConfig, *SETTINGS.values()) for s in settings(config) if not s.doc]
    assert set(silent) <= {"log_level"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.subject)
def test_every_route_has_a_sender_and_a_handler_in_the_code(route: Route) -> None:
    for services, what in ((route.senders, "sends"), (route.receivers, "handles")):
        for service in services:
            if service in (Service.READER, Service.OPERATOR):
                continue  # people with the `nats` CLI, and the one command that acts for them
            text = "".join(path.read_text() for path in source_of(service))
            assert any(mentions(text, route, message) for message in route.messages), (
                f"nothing in {service} {what} {route.subject}"
            )


def source_of(service: Service) -> list[Path]:
    folder = ROOT / "gateway" if service is Service.GATEWAY else ROOT / "services" / service.value
    return [*folder.rglob("*.py"), ROOT / "services" / "actor.py", *(ROOT / "services" / "bus").glob("*.py")]


def mentions(text: str, route: Route, message: type) -> bool:
    decoders = {"Decision": "decode_decision", "JournalEntry": "decode_entry", "UserDecision": "decode_user_decision"}
    unions = {"cmd": "decode_task_command", "cmd.user": "decode_user_command"}
    kind = "cmd.user" if route.subject.startswith("cmd.<user>.user.") else route.subject.split(".")[0]
    names = (message.__name__, decoders.get(message.__name__, message.__name__), unions.get(kind, message.__name__))
    return any(name in text for name in names)


def test_no_service_may_say_more_than_its_routes() -> None:
    for service in Service:
        allowed_subjects = permissions(service)
        assert ">" not in allowed_subjects.publish, service
        assert "$JS.API.>" not in allowed_subjects.publish, service
        assert not any(subject.startswith("_INBOX.") for subject in allowed_subjects.subscribe), service
    commanding = {s for s in Service if any(subject.startswith("cmd.") for subject in permissions(s).publish)}
    # repos: newer tokens of a GitHub account, to their user's log, and nothing else.
    assert commanding == {Service.GATEWAY, Service.RUNNER, Service.SCHEDULER, Service.OPERATOR, Service.REPOS}
    commands_of_repos = [subject for subject in permissions(Service.REPOS).publish if subject.startswith("cmd.")]
    assert commands_of_repos == ["cmd.*.user.rotate_github_tokens"]
    deciding = {s for s in Service if "evt.*.*.task.*" in permissions(s).publish}
    assert deciding == {Service.SCHEDULER}
    # Who may make a consumer may have its messages delivered to anybody; who may answer, answer in another's name.
    reader = permissions(Service.READER)
    assert not any("CREATE" in subject for subject in reader.publish)
    assert not reader.answers

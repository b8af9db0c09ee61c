"""Which versions of the engine's parts have known faults, and what is said of them."""

from __future__ import annotations

import pytest

from sandbox.advisories import ADVISORIES, BUBBLEWRAP, SETUID_BUBBLEWRAP, complaints, components, parse

ESCAPES = "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"


def told(runc: str, commit: str = "", engine: str = "29.5.1", platform: str = "") -> dict[str, tuple[str, ...]]:
    parts = [
        {"Name": "Engine", "Version": engine, "Details": {"GitCommit": "1"}},
        {"Name": "runc", "Version": runc, "Details": {"GitCommit": commit}},
        {"Name": "docker-init", "Version": "0.19.0"},
    ]
    return components({"Version": engine, "Platform": {"Name": platform}, "Components": parts})


@pytest.mark.parametrize(
    ("runc", "commit", "cves", "to"),
    [
        ("1.1.5", "v1.1.5-0-gf19387a6", f"CVE-2024-21626, CVE-2024-45310, {ESCAPES}", "1.2.8"),
        ("1.1.5+ds1", "1.1.5+ds1-1+deb12u1", f"CVE-2024-45310, {ESCAPES}", "1.2.8"),  # Debian mended the first
        ("1.1.12", "", f"CVE-2024-45310, {ESCAPES}", "1.2.8"),
        ("1.2.7", "", ESCAPES, "1.2.8"),
        ("1.2.8", "", "", ""),
        ("1.3.2", "", ESCAPES, "1.2.8"),
        ("1.3.3", "", "", ""),
        ("1.4.0-rc.2", "", ESCAPES, "1.2.8"),
        ("1.4.0-rc.3", "", "", ""),
        ("1.4.0", "", "", ""),
        ("1.5.0-rc.1", "", "", ""),  # a line after the last
        ("unknown", "", "", ""),
    ],
)
def test_faults_of_runc_are_told_with_the_release_that_mends_them(runc: str, commit: str, cves: str, to: str) -> None:
    said = list(complaints(told(runc, commit)))
    assert said == ([f"runc {runc} has known faults ({cves}): update to {to} or later."] if cves else [])


def test_a_runtime_that_is_not_in_use_is_not_complained_of() -> None:
    assert list(complaints(told("1.1.5"), but=["runc"])) == []


def test_the_engine_and_docker_desktop_have_faults_of_their_own() -> None:
    found = told("1.4.0", engine="28.5.2", platform="Docker Desktop 4.43.0 (198352)")
    assert list(complaints(found)) == [
        "Docker Engine 28.5.2 has known faults (CVE-2026-41567, CVE-2026-41568, CVE-2026-42306): "
        "update to 29.5.1 or later.",
        "Docker Desktop 4.43.0 has known faults (CVE-2025-9074): update to 4.44.3 or later.",
    ]
    assert list(complaints(told("1.4.0", platform="Docker Engine - Community"))) == []


@pytest.mark.parametrize(
    ("version", "is_setuid", "cves", "to"),
    [
        ("0.8.0", False, "CVE-2026-87766", "0.12.0"),
        ("0.11.1", False, "CVE-2026-87766", "0.12.0"),
        ("0.12.0", False, "", ""),
        ("0.13.0", True, "", ""),
        ("0.11.1", True, "CVE-2026-41163", "0.11.2"),
        ("0.8.0", True, "", ""),  # before the one, after the other
        ("0.4.0", True, "CVE-2020-5291", "0.4.1"),
        ("", True, "", ""),
    ],
)
def test_faults_of_bubblewrap_are_told_and_those_of_a_setuid_one_only_where_it_is(
    version: str, is_setuid: bool, cves: str, to: str
) -> None:
    component = SETUID_BUBBLEWRAP if is_setuid else BUBBLEWRAP
    name = "bubblewrap, setuid root here," if is_setuid else "bubblewrap"
    said = list(complaints({component: (version,)}))
    assert said == ([f"{name} {version} has known faults ({cves}): update to {to} or later."] if cves else [])


def test_an_engine_that_tells_nothing_is_not_complained_of() -> None:
    assert list(complaints(components({}))) == []


def test_each_advisory_has_versions_that_can_be_compared_and_a_source() -> None:
    assert all(parse(fixed) for one in ADVISORIES for fixed in one.fixed)
    assert all(one.source for one in ADVISORIES)
    assert len({one.id for one in ADVISORIES}) == len(ADVISORIES)

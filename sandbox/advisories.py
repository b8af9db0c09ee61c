"""Faults of what a sandbox rests on that its commands could use, and the releases that have them no more.

Left out is what needs more than a command in one of our containers: authorization plugins, hostile images, BuildKit,
Swarm, Kubernetes. Each was read at its source, in November 2026.

Bubblewrap: CVE-2026-87766 needs a mount below a folder that an agent wrote, which `sandbox.bubblewrap` never makes; it
is named because one argument more would open it. The two others are of a bwrap that is setuid root, and any user's of
that machine. Of fixes that a distribution brings under an older number `bwrap --version` tells nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-rc\.?(\d+))?")
NO_CANDIDATE = 1_000_000
DESKTOP = re.compile(r"Docker Desktop (\S+)")
BUBBLEWRAP, SETUID_BUBBLEWRAP = "bubblewrap", "setuid bubblewrap"
NAMES = {
    "engine": "Docker Engine",
    "runc": "runc",
    "desktop": "Docker Desktop",
    BUBBLEWRAP: "bubblewrap",
    SETUID_BUBBLEWRAP: "bubblewrap, setuid root here,",
}

Version = tuple[int, int, int, int]
"""The last is the number of a release candidate, which comes before its release."""


class Advisory(Struct, frozen=True, kw_only=True):
    id: str
    component: str
    fixed: tuple[str, ...]
    """The first release of each line that has the fix; lines after the last of them have it too."""
    source: str
    since: str = ""
    """The first release that has it; empty: all before the fix."""
    backported: tuple[str, ...] = ()
    """Packages of distributions that have the fix under an older version."""


ADVISORIES = (
    Advisory(
        id="CVE-2024-21626",
        component="runc",
        fixed=("1.1.12",),
        source="runc's CHANGELOG 1.1.12, GHSA-xr7r-f8xq-vfvv; Debian's changelog of runc",
        backported=("1.1.5+ds1-1+deb12u",),
    ),
    Advisory(
        id="CVE-2024-45310",
        component="runc",
        fixed=("1.1.14", "1.2.0-rc.3"),
        source="runc's CHANGELOG 1.1.14, GHSA-jfvp-7x6p-h2pv",
    ),
    *(
        Advisory(
            id=name,
            component="runc",
            fixed=("1.2.8", "1.3.3", "1.4.0-rc.3"),
            source=f"runc's CHANGELOG 1.3.3, {source}",
        )
        for name, source in (
            ("CVE-2025-31133", "GHSA-9493-h29p-rfm2"),
            ("CVE-2025-52565", "GHSA-qw9x-cqr3-wc7r"),
            ("CVE-2025-52881", "GHSA-cgrx-mc8f-2prm"),
        )
    ),
    # Only by `docker cp`, which Errand never calls, but who looks after a task may.
    *(
        Advisory(
            id=name, component="engine", fixed=("29.5.1",), source=f"release notes of Docker Engine 29.5.1, {source}"
        )
        for name, source in (
            ("CVE-2026-41567", "GHSA-x86f-5xw2-fm2r"),
            ("CVE-2026-41568", "GHSA-vp62-88p7-qqf5"),
            ("CVE-2026-42306", "GHSA-rg2x-37c3-w2rh"),
        )
    ),
    Advisory(
        id="CVE-2025-9074",
        component="desktop",
        fixed=("4.44.3",),
        source="Docker's security announcement of 2025-08-20",
    ),
    Advisory(
        id="CVE-2026-87766",
        component=BUBBLEWRAP,
        fixed=("0.12.0",),
        source="GHSA-pxhw-h44j-8pfx; flatcar/Flatcar#2417",
    ),
    Advisory(
        id="CVE-2026-41163",
        component=SETUID_BUBBLEWRAP,
        fixed=("0.11.2",),
        since="0.11.0",
        source="GHSA-xq78-7hw4-5jvp; oss-security, 2026-04-25",
    ),
    Advisory(
        id="CVE-2020-5291",
        component=SETUID_BUBBLEWRAP,
        fixed=("0.4.1",),
        since="0.4.0",
        source="GHSA-j2qp-rvxj-43vj, bubblewrap's SECURITY.md",
    ),
)


def components(about: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The versions that the engine's `/version` tells, each with what else it is called: the package it is of."""
    found: dict[str, tuple[str, ...]] = {}
    for part in about.get("Components") or ():
        found[part["Name"].lower()] = (part["Version"], (part.get("Details") or {}).get("GitCommit", ""))
    if desktop := DESKTOP.search((about.get("Platform") or {}).get("Name", "")):
        found["desktop"] = (desktop[1],)
    return found


def complaints(found: Mapping[str, tuple[str, ...]], but: Iterable[str] = ()) -> Iterator[str]:
    """A sentence for each component that has known faults; `but` are components that are not in use."""
    for component, name in NAMES.items():
        names = found.get(component, ())
        known = [one for one in ADVISORIES if one.component == component and names and not is_fixed(one, names)]
        if known and component not in but:
            cves = ", ".join(one.id for one in known)
            yield f"{name} {names[0]} has known faults ({cves}): update to {least(known)} or later."


def least(known: Iterable[Advisory]) -> str:
    """The oldest release that has none of them."""
    return max((one.fixed[0] for one in known), key=lambda fixed: parse(fixed) or ())


def is_fixed(advisory: Advisory, names: tuple[str, ...]) -> bool:
    """What tells no version is not complained of."""
    version = parse(names[0])
    if version is None or any(name.startswith(advisory.backported) for name in names if advisory.backported):
        return True
    if version < (parse(advisory.since) or version):
        return True
    lines = [parsed for fixed in advisory.fixed if (parsed := parse(fixed))]
    same = [line for line in lines if line[:2] == version[:2]]
    return version >= same[0] if same else version > max(lines)


def parse(text: str) -> Version | None:
    found = VERSION.match(text)
    if found is None:
        return None
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), int(patch), int(candidate) if candidate else NO_CANDIDATE

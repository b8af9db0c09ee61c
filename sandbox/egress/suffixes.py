"""What a list of hosts opens that its owner may not have meant, by the Public Suffix List (publicsuffix.org).

The package brings the list. Reading it takes 0.1 s and 5 MiB for a moment: only where a list gives cause to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from sandbox.egress.policy import SETTING, Allowed

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


def too_wide(allowed: Iterable[Allowed]) -> str:
    """Why one of them is refused: below a registry's suffix anybody has a name for some dollars. Empty for none."""
    stars = [one.host for one in allowed if one.below]
    if not stars:
        return ""
    suffixes = _suffixes(only_icann=True)
    for host in stars:
        if suffixes.is_public(host):
            return f"*.{host} is every name that anybody registers below {host}: give the hosts, as example.{host}"
    return ""


def doubts(allowed: Collection[Allowed]) -> Iterator[str]:
    """A sentence for each that may stand, and that its owner should look at."""
    if not allowed:
        return
    suffixes = _suffixes()
    for one in allowed:
        if one.below and suffixes.is_public(one.host):
            yield (
                f"*.{one.host} in {SETTING} are names that {one.host} gives to anybody: what a task may reach there it "
                "can send to whoever has one. Give the hosts that you mean."
            )
        elif suffixes.publicsuffix(one.host) is None:
            yield (
                f"{one.host} in {SETTING} is in no public domain: a name of your own network stands for an address "
                "that is not public, and such addresses are never reached."
            )


def _suffixes(*, only_icann: bool = False) -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_unknown=False, only_icann=only_icann)

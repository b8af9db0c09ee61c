"""The system calls that no command may make, as a program for the kernel's filter; the policy is seccomp.json.

Nothing on PyPI carries libseccomp, and machines without it are many; the policy needs seven kinds of instruction
(linux/filter.h, seccomp(2)). It is a list of what is denied, because builds and tests may need any of the rest, and of
what came after the policy was written nothing is allowed. An `x32` or 32-bit call is none of ours: refused as unknown.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

POLICY = Path(__file__).with_name("seccomp.json")
LOAD, EQUAL, ABOVE, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
"""BPF_LD|W|ABS, BPF_JMP with BPF_JEQ, BPF_JGT and BPF_JSET against a constant, BPF_RET."""
ALLOW, ERROR = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS, ARGUMENT_BYTES = 0, 4, 16, 8
"""Offsets in the kernel's struct seccomp_data. Of an argument the lower half is looked at, first on both machines."""

ErrorName = Literal["EPERM", "ENOSYS", "EAFNOSUPPORT"]


class Architecture(Struct, frozen=True, forbid_unknown_fields=True):
    audit: int
    """AUDIT_ARCH of linux/audit.h."""
    last: int
    """The highest number of a call that the policy knows."""


class Denied(Struct, frozen=True, forbid_unknown_fields=True):
    """Calls that fail with `error`. Their numbers are in the order of the architectures; None where there is none."""

    reason: str
    error: ErrorName
    calls: Mapping[str, tuple[int | None, ...]]


class Limited(Struct, frozen=True, forbid_unknown_fields=True):
    """Calls that fail by one of their arguments: one that is not `allowed`, is `forbidden`, or has a forbidden bit."""

    reason: str
    error: ErrorName
    calls: Mapping[str, tuple[int | None, ...]]
    argument: int
    allowed: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    forbidden_bits: int = 0


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    architectures: Mapping[str, Architecture]
    denied: tuple[Denied, ...]
    arguments: tuple[Limited, ...]


@cache
def filter_program(machine: str = "") -> bytes:
    """The policy for this machine, or the one named as by `uname -m`; empty where the policy knows it not."""
    policy = msgspec.json.decode(POLICY.read_bytes(), type=Policy)
    machine = machine or platform.machine()
    return b"".join(assemble(policy, machine)) if machine in policy.architectures else b""


def assemble(policy: Policy, machine: str) -> Iterator[bytes]:
    architecture, column = policy.architectures[machine], list(policy.architectures).index(machine)
    yield from unless(ARCHITECTURE, EQUAL, architecture.audit, "ENOSYS")
    yield load(NUMBER)
    yield from (jump(ABOVE, architecture.last, 0, 1), fail("ENOSYS"))
    for denied in policy.denied:
        for number in numbers(denied, column):
            yield from (jump(EQUAL, number, 0, 1), fail(denied.error))
    for limited in policy.arguments:
        check = list(check_argument(limited))
        for number in numbers(limited, column):
            yield from (jump(EQUAL, number, 0, len(check)), *check)
    yield instruction(RETURN, ALLOW)


def numbers(rule: Denied | Limited, column: int) -> Iterator[int]:
    return (number for call in rule.calls.values() if (number := call[column]) is not None)


def check_argument(limited: Limited) -> Iterator[bytes]:
    """With the call's number where it was when it goes on."""
    offset = ARGUMENTS + ARGUMENT_BYTES * limited.argument
    yield load(offset)
    yield from (jump(EQUAL, value, len(limited.allowed) - at, 0) for at, value in enumerate(limited.allowed))
    if limited.allowed:
        yield fail(limited.error)
    for value in limited.forbidden:
        yield from (jump(EQUAL, value, 0, 1), fail(limited.error))
    if limited.forbidden_bits:
        yield from (jump(ANY_BIT, limited.forbidden_bits, 0, 1), fail(limited.error))
    yield load(NUMBER)


def unless(offset: int, test: int, value: int, error: ErrorName) -> Iterator[bytes]:
    yield from (load(offset), jump(test, value, 1, 0), fail(error))


def load(offset: int) -> bytes:
    return instruction(LOAD, offset)


def jump(test: int, value: int, when_true: int, when_false: int) -> bytes:
    """Over so many of the instructions that follow."""
    return instruction(test, value, when_true, when_false)


def fail(error: ErrorName) -> bytes:
    return instruction(RETURN, ERROR | getattr(errno, error))


def instruction(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    """A struct sock_filter."""
    return struct.pack("=HBBI", code, when_true, when_false, value)

"""The filter's program, run as the kernel would: also for the machine that no test runs on."""

from __future__ import annotations

import errno
import struct

import msgspec
import pytest

from sandbox.seccomp import ABOVE, ALLOW, ANY_BIT, EQUAL, ERROR, LOAD, POLICY, RETURN, Policy, filter_program

INTEL, ARM = ("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)
NEWUSER, SIGCHLD, TIOCSTI, TIOCGWINSZ = 0x10000000, 17, 0x5412, 0x5413


def answer(machine: tuple[str, int], number: int, *arguments: int, audit: int = 0) -> str:
    """`allowed`, or the error's name."""
    name, own_audit = machine
    data = struct.pack("=iIQ6Q", number, audit or own_audit, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("=HBBI", filter_program(name)))
    at, value = 0, 0
    while True:
        code, when_true, when_false, constant = program[at]
        at += 1
        match code:
            case _ if code == LOAD:
                (value,) = struct.unpack_from("=I", data, constant)
            case _ if code == RETURN:
                return "allowed" if constant == ALLOW else errno.errorcode[constant ^ ERROR]
            case _:
                holds = {EQUAL: value == constant, ABOVE: value > constant, ANY_BIT: bool(value & constant)}[code]
                at += when_true if holds else when_false


@pytest.mark.parametrize(
    ("reason", "machine", "call", "expected"),
    [
        ("reading is allowed", INTEL, (0, 3), "allowed"),
        ("and on the other machine", ARM, (63, 3), "allowed"),
        ("mount", INTEL, (165,), "EPERM"),
        ("mount there", ARM, (40,), "EPERM"),
        ("what is mount here is another call there", ARM, (165,), "allowed"),
        ("a process", INTEL, (56, SIGCHLD), "allowed"),
        ("a process in a user namespace of its own", INTEL, (56, SIGCHLD | NEWUSER), "EPERM"),
        ("the same by unshare", ARM, (97, NEWUSER), "EPERM"),
        ("unshare of open files", ARM, (97, 0x400), "allowed"),
        ("an Internet socket", INTEL, (41, 2, 1), "allowed"),
        ("a netlink socket, the last of the list", ARM, (198, 16, 3), "allowed"),
        ("a socket to the hypervisor", INTEL, (41, 40, 1), "EAFNOSUPPORT"),
        ("the window's size", INTEL, (16, 0, TIOCGWINSZ), "allowed"),
        ("words into the terminal", INTEL, (16, 0, TIOCSTI), "EPERM"),
        ("the same with bits that the kernel does not look at", INTEL, (16, 0, TIOCSTI | 1 << 32), "EPERM"),
        ("clone3", ARM, (435,), "ENOSYS"),
        ("a call that came after the policy", ARM, (467,), "ENOSYS"),
        ("getpid of the x32 kind", INTEL, (0x40000000 + 39,), "ENOSYS"),
        ("a negative number", INTEL, (-1,), "ENOSYS"),
    ],
)
def test_a_call_is_answered(reason: str, machine: tuple[str, int], call: tuple[int, ...], expected: str) -> None:
    assert answer(machine, *call) == expected, reason


def test_a_32_bit_call_is_none_of_ours() -> None:
    assert answer(INTEL, 20, audit=0x40000003) == "ENOSYS"


def test_a_machine_without_a_policy_has_no_filter() -> None:
    assert filter_program("riscv64") == b""


def test_every_rule_has_a_number_for_each_machine_and_no_call_two_rules() -> None:
    policy = msgspec.json.decode(POLICY.read_bytes(), type=Policy)
    for column in range(len(policy.architectures)):
        numbers = [
            call[column]
            for rule in (*policy.denied, *policy.arguments)
            for call in rule.calls.values()
            if len(call) == len(policy.architectures) and call[column] is not None
        ]
        assert len(numbers) == len(set(numbers)) > 40

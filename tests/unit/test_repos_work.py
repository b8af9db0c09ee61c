"""The pure parts of publishing: what came in, what changed, what may be said about it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.removal import remove_tree
from services import envelope
from services.bus import Refused
from services.repos.bundle import Bundle, read_bundle
from services.repos.cache import first_text
from services.repos.changes import Changed, escapes, leaves_the_tree, notices, read_change
from services.repos.complaints import explain
from services.repos.git import GitFailed, Remote
from services.repos.publish import DIFF_LIMIT_BYTES, cut_diff, refused_push

ID = b"a" * 40
NOBODY = 65534


@pytest.mark.parametrize(
    ("header", "tips", "why"),
    [
        (b"# v2 git bundle\n" + ID + b" refs/x\n", ("a" * 40,), "one ref"),
        (b"# v2 git bundle\n-" + b"b" * 40 + b" why\n" + ID + b" refs/x\n", ("a" * 40,), "with what it needs"),
        (b"# v3 git bundle\n@object-format=sha256\n" + b"c" * 64 + b" refs/x\n", ("c" * 64,), "SHA-256"),
    ],
)
def test_a_bundles_header_is_read(header: bytes, tips: tuple[str, ...], why: str) -> None:
    data = header + b"\nPACK..."
    assert read_bundle(data) == Bundle(tips, data.index(b"PACK")), why


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "nothing"),
        (b"PACK", "a pack alone"),
        (b"# v2 git bundle\n" + ID + b" refs/x\n", "no pack"),
        (b"# v4 git bundle\n" + ID + b" refs/x\n\nPACK", "another version"),
        (b"# v2 git bundle\n@object-format=sha1\n\nPACK", "a capability in version 2"),
        (b"# v3 git bundle\n@filter=blob:none\n" + ID + b" refs/x\n\nPACK", "objects were left out"),
        (b"# v2 git bundle\n" + b"a" * 39 + b" refs/x\n\nPACK", "half an id"),
        (b"# v2 git bundle\n" + b"x" * 100_000 + b"\n\nPACK", "a header without an end"),
        (bytes(range(256)), "any bytes"),
    ],
)
def test_what_is_no_bundle_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Refused) as refused:
        read_bundle(data)
    assert "damaged" in refused.value.reason, why


def test_a_change_is_read_from_gits_lists() -> None:
    zeros, blob = "0" * 40, "a" * 40
    fields = [
        f":000000 100644 {zeros} {blob} A",
        "new\tname",
        f":100644 000000 {blob} {zeros} D",
        "gone",
        f":100644 120000 {blob} {blob} R090",
        "from",
        "to",
        "3\t0\tnew\tname",
        "0\t4\tgone",
        "-\t-\tbinary",
        "1\t2\t",
        "from",
        "to",
    ]
    change = read_change(("\0".join(fields) + "\0").encode())
    assert change.entries == (
        Changed("new\tname", "100644", blob),
        Changed("gone", "000000", zeros),
        Changed("to", "120000", blob),
    )
    assert [entry.is_deleted for entry in change.entries] == [False, True, False]
    assert (change.insertions, change.deletions) == (4, 6)


@pytest.mark.parametrize(
    ("path", "target", "leaves"),
    [
        ("a", "b", False),
        ("a/b", "../c", False),
        ("a/b", "./../c/d", False),
        ("a", "/etc/passwd", True),
        ("a", "..", True),
        ("a", "../x", True),
        ("a/b", "../../x", True),
        ("a/b", "c/../../../x", True),
        ("a", ".git/config", True),
        ("a/b", "../.GIT", True),
        ("a", "x/.git", False),
        ("a", "..x", False),
    ],
)
def test_a_link_may_point_only_into_its_tree(path: str, target: str, leaves: bool) -> None:
    assert leaves_the_tree(path, target) == leaves
    assert bool(escapes([(path, target)])) == leaves


@pytest.mark.parametrize(
    ("path", "mode", "noticed"),
    [
        (".github/workflows/x.yml", "100644", True),
        (".GitHub/workflows/x.yml", "100644", True),
        (".gitlab-ci.yml", "100644", True),
        (".gitmodules", "100644", True),
        ("library", "160000", True),
        ("src/.github.py", "100644", False),
        ("docs/Jenkinsfile.md", "100644", False),
    ],
)
def test_what_a_host_runs_by_itself_is_noticed(path: str, mode: str, noticed: bool) -> None:
    change = read_change(f":000000 {mode} {'0' * 40} {'a' * 40} A\0{path}\0".encode())
    assert bool(notices(change)) == noticed


HERE = Remote(url="https://git.example.org/o/r", protocols="https", place="git.example.org")
KNOWN = Remote(url=HERE.url, protocols="https", place=HERE.place, has_credential=True)


@pytest.mark.parametrize(
    ("said", "remote", "code", "words"),
    [
        ("fatal: could not read Username for 'https://x': terminal prompts disabled", HERE, "refused", "host add git"),
        ("fatal: Authentication failed for 'https://x/'", KNOWN, "refused", "refused the credential"),
        ("error: The requested URL returned error: 403", KNOWN, "refused", "refused the credential"),
        ("git@x: Permission denied (publickey).\nfatal: Could not read from", HERE, "refused", "errand host add"),
        ("remote: Repository not found.\nfatal: repository 'https://x/' not found", KNOWN, "not_found", "not found"),
        ("fatal: '/x' does not appear to be a git repository", HERE, "not_found", "not found"),
        ("fatal: unable to access 'x': Could not resolve host: x", HERE, "unavailable", "cannot be reached"),
        (
            "fatal: unable to access: Failed to connect to x port 443: Connection refused",
            HERE,
            "unavailable",
            "reached",
        ),
        ("error: RPC failed; HTTP 403 curl 22\nerror: returned error: 403", KNOWN, "refused", "refused the credential"),
        ("error: RPC failed; curl 28 Operation too slow", HERE, "unavailable", "reached"),
        ("fatal: The requested URL returned error: 503", HERE, "unavailable", "reached"),
        ("ssh: connect to host x port 22: Connection timed out", HERE, "unavailable", "reached"),
        ("Host key verification failed.", HERE, "refused", "host key"),
        ("fatal: unable to access: SSL certificate problem: self-signed certificate", HERE, "refused", "certificate"),
        ("fatal: detected dubious ownership in repository at '/x'", HERE, "refused", "another user"),
        ("error: file write error: No space left on device", None, "unavailable", "disk is full"),
        ("fatal: bad object", None, "internal", "bad object"),
        ("", HERE, "refused", "no reason"),
        ("warning: x\nhint: y\nfatal: odd\x1b[31m thing", HERE, "refused", "odd"),
    ],
)
def test_what_git_says_becomes_a_sentence(said: str, remote: Remote | None, code: str, words: str) -> None:
    reason, found = explain("fetch", said, remote)
    assert words in reason
    assert found == code
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("output", "said", "words"),
    [
        ("!\ta:b\t[rejected] (non-fast-forward)\nDone", "", "not overwritten"),
        ("!\ta:b\t[rejected] (fetch first)", "", "not overwritten"),
        ("!\ta:b\t[remote rejected] (pre-receive hook declined)", "remote: no Fridays", "no Fridays"),
        (
            "!\ta:b\t[remote rejected] (refusing to allow a token to create workflow `x` without `workflow` scope)",
            "",
            "workflow files",
        ),
        ("", "fatal: unable to access", ""),
    ],
)
def test_what_a_remote_has_against_a_push_is_said(output: str, said: str, words: str) -> None:
    error = GitFailed("x", "refused", exit_code=1, output=output, said=said)
    reason = refused_push(error, "errand/x", "git.example.org")
    assert words in reason
    assert bool(reason) == bool(words)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b"id blob 5\nhello\nid blob 3\nyou\n", "hello"),
        (b"c:AGENTS.md missing\nid blob 3\nyou\n", "you"),
        (b"id blob 1\n\n\nid blob 3\nyou\n", "you"),
        (b"id tree 4\n\0\1\2\3\nid blob 3\nyou\n", "you"),
        (b"dangling 9\nAGENTS.mx\nid blob 3\nyou\n", "you"),
        (b"symlink 7\n/etc/xy\nid blob 3\nyou\n", "you"),
        (b"id blob 2\n\xff\xfe\n", "\ufffd\ufffd"),
        (b"c:AGENTS.md missing\nc:CLAUDE.md missing\n", ""),
        (b"", ""),
        (b"id blob 40000\n" + b"x" * 40_000, "x" * 32768 + "\n\n[cut at 32 KiB]"),
    ],
)
def test_instructions_are_the_first_file_with_text(output: bytes, text: str) -> None:
    assert first_text(output) == text


def test_a_diff_is_cut_at_a_lines_end_and_always_fits() -> None:
    assert cut_diff(b"a\tb\r\n\0\x1b[31m\xff").text == "a\tb\r\n\u2400\u241b[31m\ufffd"
    for line in (b"x" * 99 + b"\n", b"\xff" * 99 + b"\n", b"\0" * 99 + b"\n", "ä".encode() * 50 + b"\n"):
        cut = cut_diff(line * 10_000)
        assert cut.cut
        assert cut.text.endswith("\n")
        assert DIFF_LIMIT_BYTES - 400 < len(cut.text.encode()) <= DIFF_LIMIT_BYTES


def test_an_envelope_opens_only_with_its_key_and_for_its_host() -> None:
    private, other = envelope.make_key(), envelope.make_key()
    sealed = envelope.seal(envelope.public_key(private), "github.com", "s3cret ä")
    assert "s3cret" not in sealed
    assert envelope.unseal(private, "github.com", sealed) == "s3cret ä"
    for key, host, text in (
        (other, "github.com", sealed),
        (private, "evil.example", sealed),
        (private, "github.com", sealed[:-8] + "AAAAAAA="),
        (private, "github.com", "not base64!"),
        (private, "github.com", ""),
    ):
        with pytest.raises(envelope.NotOpened):
            envelope.unseal(key, host, text)
    for secret in ("", "x" * 20_000):
        with pytest.raises(ValueError, match="A credential has"):
            envelope.seal(envelope.public_key(private), "github.com", secret)


def test_a_hostile_folder_is_removed_and_nothing_beside_it(ground: Path) -> None:
    outside = ground / "outside"
    outside.mkdir(mode=0o500)
    (ground / "kept").write_text("kept")
    root = ground / "trash" / "root"
    root.mkdir(parents=True)
    (root / "to-file").symlink_to(ground / "kept")
    (root / "to-folder").symlink_to(outside)
    (root / "to-itself").symlink_to(root)
    (root / "closed" / "inner").mkdir(parents=True)
    (root / "closed" / "inner" / "file").write_text("x")
    (root / "closed" / "inner").chmod(0)
    (root / "closed").chmod(0)
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff\n")).write_text("odd name")
    make_deep(root / "deep", 1_200)
    remove_tree(root)
    assert list((ground / "trash").iterdir()) == []
    assert (ground / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o500


@pytest.fixture
def ground() -> Iterator[Path]:
    """A folder to work in as an ordinary user: to root no folder is closed."""
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    if root:
        os.seteuid(0)
    (folder / "outside").chmod(0o700)
    shutil.rmtree(folder)


def make_deep(folder: Path, depth: int) -> None:
    """Nested further than a path can be long."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def test_what_is_no_folder_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="link"):
        remove_tree(tmp_path / "link")

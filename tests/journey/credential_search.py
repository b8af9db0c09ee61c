"""Runs inside a sandbox and looks for credentials of a known look in all that a command can read there: its environment
and that of every process, their arguments and open files, the mounts, every file that is not the system's, git's
settings. Says where it found some, and how much it looked through; as a proof that it finds any, it hides three itself.

Standard library only. The words are cut in two, that this file is none of the places.
"""

import base64
import json
import os
import stat
import subprocess

CANARY = b"canary" + b"-"
DECOY = b"decoy" + b"-here-"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sys")
FILE_LIMIT_BYTES = 32 * 1024 * 1024
OF_A_PROCESS = ("environ", "cmdline", "mountinfo", "maps", "comm", "cgroup", "fd/0", "fd/1", "fd/2")
GIT = (["config", "--list", "--show-origin"], ["remote", "--verbose"], ["credential", "fill"])


def forms(word):
    """As it is, and what base64 makes of it at each place in a longer text."""
    yield word
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + word)
        yield encoded[(before * 8 + 5) // 6 : (before + len(word)) * 8 // 6]


def places():
    """(where, bytes)."""
    yield "environment", repr(os.environ).encode()
    for process in filter(str.isdigit, os.listdir("/proc")):
        for name in OF_A_PROCESS:
            yield from read(f"/proc/{process}/{name}")
    for words in GIT:
        asked = subprocess.run(["git", *words], input=b"protocol=http\nhost=git.example\n\n", capture_output=True)
        yield f"git {words[0]}", asked.stdout + asked.stderr
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in SYSTEM]
        for name in names:
            yield from read(os.path.join(folder, name))


def read(path):
    try:
        if path.startswith("/proc") or stat.S_ISREG(os.stat(path).st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                yield path, file.read(FILE_LIMIT_BYTES) or b""
    except OSError:
        return


def main():
    with open("/tmp/in-a-file", "wb") as file:
        file.write(b"password=" + base64.b64encode(b"user:" + DECOY))
    hidden = DECOY.decode()
    child = subprocess.Popen(["sleep", "60"], env={"HIDDEN": hidden, "PATH": os.environ["PATH"]})
    subprocess.run(["git", "config", "--global", "http.extraheader", hidden], check=True)
    looked, found = 0, {CANARY: [], DECOY: []}
    for where, data in places():
        looked += 1
        for word, list_of in found.items():
            if any(form in data for form in forms(word)):
                list_of.append(where.replace(str(child.pid), "child"))
    child.kill()
    print(json.dumps({"found": found[CANARY], "decoys": sorted(set(found[DECOY])), "looked": looked}))


if __name__ == "__main__":
    main()

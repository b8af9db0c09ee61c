"""Run inside a sandbox: tries the known ways out and prints a line for each that is open. Standard library only.

Its argument is JSON: the host's namespaces by name, and addresses of it that listen.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import socket
import stat
import sys

HOST = json.loads(sys.argv[1])
WRITABLE = {"/workspace", "/tmp", "/var/tmp", "/dev/shm", "/run/errand", "/dev/mqueue", "/dev/pts", "/proc", "/dev"}
LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NAMESPACES = {"cgroup": 1 << 25, "uts": 1 << 26, "ipc": 1 << 27, "user": 1 << 28, "pid": 1 << 29, "net": 1 << 30}
CALLS = {
    # By x86_64 and aarch64: number, arguments that would do something if it were allowed.
    "keyctl": ((250, 219), (0, -3, 1)),
    "add_key": ((248, 217), (b"user", b"errand", b"x", 1, -3)),
    "request_key": ((249, 218), (b"user", b"errand", None, -3)),
    "bpf": ((321, 280), (0, bytes(128), 72)),
    "perf_event_open": ((298, 241), (bytes(128), 0, -1, -1, 0)),
    "userfaultfd": ((323, 282), (1,)),
    "io_uring_setup": ((425, 425), (1, bytes(128))),
    "open_by_handle_at": ((304, 265), (-100, bytes(32), 0)),
    "fsopen": ((430, 430), (b"tmpfs", 0)),
    "open_tree": ((428, 428), (-100, b"/", 1)),
    "chroot": ((161, 51), (b"/tmp",)),
    "pivot_root": ((155, 41), (b"/tmp", b"/tmp")),
    "syslog": ((103, 116), (3, bytes(128), 100)),
    "kexec_load": ((246, 104), (0, 0, 0, 0)),
    "delete_module": ((176, 106), (b"errand", 0)),
    "sethostname": ((170, 161), (b"out", 3)),
    "a call of tomorrow": ((5000, 5000), ()),
}
FAMILIES = {"packet": (17, 3), "vsock": (40, 1), "alg": (38, 5), "raw": (2, 3), "bluetooth": (31, 3), "tipc": (30, 1)}
DEVICES = ("mem", "kmem", "port", "kmsg", "kvm", "fuse", "net/tun", "sda", "vda", "loop-control", "mapper/control")
SECRETS = (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/sysrq-trigger",
    "/proc/1/mem",
    "/proc/1/environ",
    "/proc/1/root/etc",
    "/proc/1/fd/0",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/sys/kernel/security/lockdown",
    "/sys/fs/cgroup/release_agent",
    "/sys/kernel/debug/tracing",
    "/etc/shadow",
)


def found(what: str) -> None:
    print(what, flush=True)


def system_calls() -> None:
    column = ("x86_64", "aarch64").index(platform.machine())
    for name, (numbers, arguments) in CALLS.items():
        if LIBC.syscall(numbers[column], *arguments) != -1:
            found(f"the system call {name}")
    if LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None) != -1 or LIBC.umount2(b"/workspace", 2) != -1:
        found("mounts can be changed")
    if LIBC.ptrace(16, 1, 0, 0) != -1:
        found("PID 1 can be traced")
    if LIBC.syscall(435, bytes(88), 88) != -1 or ctypes.get_errno() != errno.ENOSYS:
        found("clone3, which no filter can look into")


def namespaces() -> None:
    for name, flag in NEW_NAMESPACES.items():
        child = os.fork()
        if not child:
            os._exit(LIBC.unshare(flag) != -1)
        if os.waitpid(child, 0)[1]:
            found(f"a {name} namespace of one's own")
    for name, theirs in HOST["namespaces"].items():
        if os.readlink(f"/proc/self/ns/{name}") == theirs:
            found(f"the host's {name} namespace")
        if LIBC.setns(os.open(f"/proc/self/ns/{name}", os.O_RDONLY), 0) != -1:
            found(f"setns to {name}")


def rights() -> None:
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status[name], 16):
            found(f"capabilities {name}={status[name]}")
    if (status["NoNewPrivs"], status["Seccomp"]) != ("1", "2"):
        found("privileges can be won, or calls are not filtered")
    if 0 in (os.getuid(), os.getgid(), *os.getgroups()) or LIBC.setuid(0) != -1:
        found("root")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] or resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 1 << 20:
        found("no limit of cores or files")


def files() -> None:
    with open("/proc/self/mountinfo") as file:
        points = {line.split()[4] for line in file}
    for point in points - WRITABLE:
        if os.access(point, os.W_OK) and not stat.S_ISCHR(os.stat(point).st_mode):
            found(f"{point} can be written")
    for path in SECRETS:
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError:
            continue
        found(f"{path} can be read")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            found(f"the device {name}")
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        try:
            os.mknod("/tmp/errand-probe", 0o600 | kind, os.makedev(1, 1))
        except OSError:
            continue
        found("devices can be made")
    for folder, _, names in os.walk("/proc/sys"):
        for name in names:
            if settable(f"{folder}/{name}"):
                found(f"{folder}/{name} can be set")


def settable(path: str) -> bool:
    """To what it is: a hole does the machine that has it no harm."""
    try:
        with open(path, "r+b", buffering=0) as file:
            value = file.read(4096)
            file.seek(0)
            return bool(file.write(value or b"\n"))
    except OSError:
        return False


def opens() -> bool:
    """The door in the sandbox's own namespace, which is for later runners."""
    streams = socket.socketpair()
    with streams[0], streams[1], socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.settimeout(2)
        try:
            door.connect("\0errand")
            told = {"attempt": 2, "previous": 1, "lease": 60}
            socket.send_fds(door, [json.dumps(told).encode()], [streams[1].fileno()] * 2)
            return door.recv(1) != b""
        except TimeoutError:
            return True  # it holds us, as it would hold a runner
        except OSError:
            return False


def network() -> None:
    for name, (family, kind) in FAMILIES.items():
        try:
            socket.socket(family, kind).close()
        except OSError:
            continue
        found(f"sockets of the kind {name}")
    if [name for _, name in socket.if_nameindex() if name != "lo" and up(name)]:
        found("a network interface")
    with open("/proc/net/unix") as file:
        if [line for line in file.readlines()[1:] if not line.endswith(" @errand\n")]:
            found("local sockets of others")
    if opens():
        found("the exec server's door open to a command")
    for host, port in HOST["addresses"]:
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError:
            continue
        found(f"the host at {host}:{port}")


def up(name: str) -> bool:
    """Tunnels that the kernel makes in each new namespace are there and down."""
    try:
        with open(f"/sys/class/net/{name}/flags") as file:
            return bool(int(file.read(), 16) & 1)
    except OSError:
        return False


for probe in (system_calls, namespaces, rights, files, network):
    try:
        probe()
    except Exception as error:
        found(f"{probe.__name__} failed: {error!r}")
print("probed")

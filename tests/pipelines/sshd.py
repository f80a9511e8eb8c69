"""A real sshd on the loopback interface, for tests that reach a device."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING = SSHD is None or shutil.which("ssh") is None


@dataclass(frozen=True)
class Server:
    """A running sshd, the ssh command for it, and where its sessions keep temporary files."""

    ssh: tuple[str, ...]
    temporary: Path
    user: str

    def left(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir()]

    def wait_until_clean(self) -> bool:
        for _ in range(100):
            if not self.left():
                return True
            time.sleep(0.1)
        return False


def start_server(folder: Path, temporary: Path, *, path: str | None = None) -> tuple[Server, subprocess.Popen[bytes]]:
    """Start it; its sessions keep temporary files in `temporary` and look for programs in `path`, if it is given."""
    for name in ("host", "user"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    user = pwd.getpwuid(os.getuid()).pw_name
    command = "" if path is None else f'ForceCommand PATH={path} sh -c "$SSH_ORIGINAL_COMMAND"\n'
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv TMPDIR={temporary} OMP_NUM_THREADS=1\n{command}"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    ssh: tuple[str, ...] = ("ssh", "-T", "-F", "none", "-i", f"{folder}/user", "-p", str(port), "-o", "BatchMode=yes")
    ssh += ("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known", "-o", "LogLevel=ERROR")
    return Server(ssh, temporary, user), process

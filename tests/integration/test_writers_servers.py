"""Uploads through real servers: Samba, vsftpd, pyftpdlib, OpenSSH. Each ends as exactly one whole result."""

from __future__ import annotations

import contextlib
import ftplib
import getpass
import io
import shutil
import socket
import struct
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from daemonrig import DaemonRig
from rigs import shares
from rigs.writers import QUIET_S, Task, Writer, Written, eventually, pieces, sh, stall
from smbprotocol.connection import Connection
from smbprotocol.file_info import FileBasicInformation, FileEndOfFileInformation, FileRenameInformation
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
    SMB2SetInfoRequest,
)
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

# --- SMB -----------------------------------------------------------------------------------


def smbclient(port: int, share: str, task: Task, commands: str) -> None:
    command = 'smbclient -N -p $PORT //127.0.0.1/$SHARE -c "$DO"'
    sh(command, cwd=task.aside, PORT=port, SHARE=share, DO=commands)


def smb_put(port: int, task: Task) -> None:
    smbclient(port, "in", task, f"put {task.original} {task.name}")


def smb_put_then_renamed(port: int, task: Task) -> None:
    smbclient(port, "in", task, f"put {task.original} {task.name}.part; rename {task.name}.part {task.name}")


def smb_put_from_a_mac(port: int, task: Task) -> None:
    """With AppleDouble: the resource fork is a file of its own, under the photo's suffix."""
    (task.aside / "fork").write_bytes(b"\0\5\26\7" + bytes(100))
    smbclient(
        port, "mac", task, f"put {task.original} {task.name}; put fork ._{task.name}; put fork .DS_Store"
    )


class SmbFile:
    """A file on the share, opened the way Windows does: kept open, written where it pleases."""

    def __init__(self, port: int, name: str) -> None:
        self._connection = Connection(uuid.uuid4(), "127.0.0.1", port, require_signing=False)
        self._connection.connect()
        session = Session(self._connection, "nobody", "", require_encryption=False, auth_protocol="ntlm")
        session.connect()
        tree = TreeConnect(session, r"\\127.0.0.1\in")
        tree.connect(require_secure_negotiate=False)
        self.open = Open(tree, name)
        self.open.create(
            ImpersonationLevel.Impersonation,
            FilePipePrinterAccessMask.GENERIC_READ
            | FilePipePrinterAccessMask.GENERIC_WRITE
            | FilePipePrinterAccessMask.DELETE,
            0,
            ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE,
            CreateDisposition.FILE_OVERWRITE_IF,
            CreateOptions.FILE_NON_DIRECTORY_FILE,
        )

    def write(self, content: bytes, at: int) -> None:
        for start in range(0, len(content), 60_000):
            self.open.write(content[start : start + 60_000], at + start)

    def set(self, facts: FileEndOfFileInformation | FileBasicInformation | FileRenameInformation) -> None:
        request = SMB2SetInfoRequest()
        request["info_type"] = 1
        request["file_info_class"] = facts.INFO_CLASS
        request["file_id"] = self.open.file_id
        request["buffer"] = facts
        connection, session, tree = self._connection, self.open.tree_connect.session, self.open.tree_connect
        sent = connection.send(request, session.session_id, tree.tree_connect_id)
        connection.receive(sent)

    def close(self) -> None:
        self.open.close(False)
        self._connection.disconnect()

    def die(self) -> None:
        """The laptop's lid is closed."""
        self._connection.disconnect(close=False)


def smb_copied_by_explorer(port: int, task: Task) -> None:
    """The full length first, the pixels then, an old date at the end."""
    file = SmbFile(port, task.name)
    end = FileEndOfFileInformation()
    end["end_of_file"] = len(task.content)
    file.set(end)
    at = 0
    for piece in pieces(task.content):
        stall()
        file.write(piece, at)
        at += len(piece)
    old = FileBasicInformation()
    old["last_write_time"] = 116_444_736_000_000_000 + 1_000_000_000 * 10_000_000  # 2001-09-09, in 100 ns
    file.set(old)
    file.close()


def smb_renamed_while_open(port: int, task: Task) -> None:
    halves = pieces(task.content, 2)
    file = SmbFile(port, f"{task.name}.tmp")
    file.write(halves[0], 0)
    rename = FileRenameInformation()
    rename["file_name"] = task.name
    file.set(rename)
    stall()
    file.write(halves[1], len(halves[0]))
    file.close()


def smb_client_died_and_copied_again(port: int, task: Task) -> None:
    file = SmbFile(port, task.name)
    file.write(pieces(task.content)[0], 0)
    file.die()
    stall()
    smb_put(port, task)


SMB = (
    smb_put,
    smb_put_then_renamed,
    smb_put_from_a_mac,
    smb_copied_by_explorer,
    smb_renamed_while_open,
    smb_client_died_and_copied_again,
)

# --- FTP -----------------------------------------------------------------------------------


@contextlib.contextmanager
def ftp(port: int, folder: str) -> Iterator[ftplib.FTP]:
    client = ftplib.FTP()
    client.connect("127.0.0.1", port, timeout=30)
    client.login()
    client.cwd(folder)
    client.voidcmd("TYPE I")
    try:
        yield client
    finally:
        client.close()


def send(
    client: ftplib.FTP, command: str, parts: list[bytes], *, rest: int | None = None, reset: bool = False
) -> None:
    """One transfer in pieces with a stall between them; with `reset` its connection breaks at the end."""
    data = client.transfercmd(command, rest)
    for number, part in enumerate(parts):
        if number:
            stall()
        data.sendall(part)
    if reset:
        data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    data.close()
    with contextlib.suppress(*([ftplib.Error, EOFError, OSError] if reset else [])):
        client.voidresp()


def ftp_stor(port: int, folder: str, task: Task) -> None:
    with ftp(port, folder) as client:
        client.storbinary(f"STOR {task.name}", io.BytesIO(task.content))


def ftp_stor_that_stalls(port: int, folder: str, task: Task) -> None:
    with ftp(port, folder) as client:
        send(client, f"STOR {task.name}", pieces(task.content))


def ftp_broken_and_resumed_by_rest(port: int, folder: str, task: Task) -> None:
    half = pieces(task.content, 2)[0]
    _break_off(port, folder, task, half)
    arrived = task.target.stat().st_size
    with ftp(port, folder) as client:
        send(client, f"STOR {task.name}", [task.content[arrived:]], rest=arrived)


def ftp_broken_and_resumed_by_appe(port: int, folder: str, task: Task) -> None:
    half = pieces(task.content, 2)[0]
    _break_off(port, folder, task, half)
    arrived = task.target.stat().st_size
    with ftp(port, folder) as client:
        send(client, f"APPE {task.name}", pieces(task.content[arrived:], 2))


def ftp_broken_and_sent_again(port: int, folder: str, task: Task) -> None:
    _break_off(port, folder, task, pieces(task.content, 2)[0])
    ftp_stor(port, folder, task)


def _break_off(port: int, folder: str, task: Task, part: bytes) -> None:
    """The camera leaves the network. vsftpd calls even that a complete transfer."""
    with ftp(port, folder) as client:
        data = client.transfercmd(f"STOR {task.name}")
        data.sendall(part)
        eventually(task.target.exists)
        stall()
        data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        data.close()
    stall()


def ftp_aborted_and_sent_again(port: int, folder: str, task: Task) -> None:
    with ftp(port, folder) as client:
        data = client.transfercmd(f"STOR {task.name}")
        data.sendall(pieces(task.content)[0])
        data.close()
        with contextlib.suppress(ftplib.Error, EOFError):
            client.abort()
    stall()
    ftp_stor(port, folder, task)


def ftp_part_then_renamed(port: int, folder: str, task: Task) -> None:
    with ftp(port, folder) as client:
        send(client, f"STOR {task.name}.part", pieces(task.content, 2))
        client.rename(f"{task.name}.part", task.name)


FTP = (
    ftp_stor,
    ftp_stor_that_stalls,
    ftp_broken_and_resumed_by_rest,
    ftp_broken_and_resumed_by_appe,
    ftp_broken_and_sent_again,
    ftp_aborted_and_sent_again,
    ftp_part_then_renamed,
)

# --- SSH -----------------------------------------------------------------------------------

SSH = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i $KEY -P $PORT -q"


def scp(port: int, key: Path, task: Task) -> None:
    command = f"scp {SSH} -l 800 $FROM $USER@127.0.0.1:$TO"  # 100 KB/s
    sh(
        command,
        cwd=task.aside,
        KEY=key,
        PORT=port,
        FROM=task.original,
        TO=task.target,
        USER=getpass.getuser(),
    )


def sftp_broken_and_resumed(port: int, key: Path, task: Task) -> None:
    task.target.write_bytes(pieces(task.content, 2)[0])  # what an sftp that lost its connection leaves
    stall()
    command = f'echo "reput $FROM $TO" | sftp {SSH} -b - $USER@127.0.0.1'
    sh(
        command,
        cwd=task.aside,
        KEY=key,
        PORT=port,
        FROM=task.original,
        TO=task.target,
        USER=getpass.getuser(),
    )


# --- All of them ---------------------------------------------------------------------------


def named(functions: tuple[Callable[..., None], ...], *server: object) -> dict[str, Writer]:
    return {function.__name__: partial(function, *server) for function in functions}


CASES = [
    *(("smb", function.__name__) for function in SMB),
    *(("vsftpd", function.__name__) for function in FTP),
    *(("pyftpd", function.__name__) for function in FTP),
    ("ssh", "scp"),
    ("ssh", "sftp_broken_and_resumed"),
]
PARTS = {"smbd": "samba", "smbclient": "smbclient", "vsftpd": "vsftpd", "sshd": "openssh-server"}


@pytest.fixture(scope="module")
def written(tmp_path_factory, real_part) -> Iterator[dict[str, Written]]:
    for program, package in PARTS.items():
        found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
        real_part(program, found, f"apt install {package}")
    root = tmp_path_factory.mktemp("servers")
    # vsftpd serves nobody in folders that only root may enter, nor in one that the guest may write.
    public = Path(tempfile.mkdtemp(prefix="hotmatte-ftp-"))
    hot = public / "hot"
    hot.mkdir()
    hot.chmod(0o777)
    public.chmod(0o755)
    folders = {name: {"quiet_s": QUIET_S} for name in ("smb", "vsftpd", "pyftpd", "ssh")}
    folders["vsftpd"]["path"] = str(hot)
    daemon = DaemonRig(root / "rig", folders=folders, card="tiny")
    try:
        daemon.start()
        all_written = {name: Written(daemon, name) for name in folders}
        with contextlib.ExitStack() as servers:
            smb = servers.enter_context(shares.samba(daemon.hot("smb"), root / "smb"))
            vsftpd = servers.enter_context(shares.vsftpd(public, root / "vsftpd"))
            pyftpd = servers.enter_context(shares.pyftpd(daemon.hot("pyftpd"), root / "pyftpd"))
            ssh = servers.enter_context(shares.sshd(root / "ssh"))
            all_written["smb"].run(named(SMB, smb))
            all_written["vsftpd"].run(named(FTP, vsftpd, "hot"))
            all_written["pyftpd"].run(named(FTP, pyftpd, "/"))
            all_written["ssh"].run(named((scp, sftp_broken_and_resumed), *ssh))
            yield all_written
        assert daemon.stop() == 0
        assert daemon.leftovers() == []
    finally:
        daemon.close()
        shutil.rmtree(public)


@pytest.mark.parametrize(("server", "case"), CASES)
def test_an_upload_ends_as_exactly_one_whole_result(written, server, case):
    written[server].check(case)


def test_what_a_mac_leaves_beside_a_photo_is_no_photo(written):
    one = written["smb"]
    one.check("smb_put_from_a_mac")
    assert (one.daemon.hot("smb") / "._smb_put_from_a_mac.jpg").exists()
    paths = {content["source"]["path"] for content in one.daemon.sidecars("smb").values()}
    assert paths <= {task.name for task in one.tasks.values()}
    assert not one.daemon.reports("smb")

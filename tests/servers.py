"""Real servers on loopback: Dask, object storage, SSH and HTTP."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import Process

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "captchas"
# Without a nanny, which would start a killed worker again: the others must take over.
WORKER = ("dask", "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")


NGINX = """
daemon off;
master_process off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format counted "$request_method $body_bytes_sent $request_length $uri";
    access_log {log} counted;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{ {location} }}
    }}
}}
"""
SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user_key.pub
PasswordAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Servers:
    """Processes that live as long as a test, or some."""

    folder: Path
    processes: list[Process | subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str, **environment: str) -> Process:
        """Start a Python module."""
        process = Process(list(command), self.folder, os.environ | {"PYTHONPATH": str(ROOT)} | environment)
        self.processes.append(process)
        return process

    def start_program(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def start_nginx(self, location: str) -> "Nginx":
        """Serve HTTP on a port of its own; `location` is what nginx does with every request."""
        nginx = Nginx(free_port(), self.folder / "requests.log")
        settings = NGINX.format(folder=self.folder, port=nginx.port, log=nginx.log, location=location)
        (self.folder / "nginx.conf").write_text(settings)
        self.start_program("nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"))
        return nginx

    def start_sshd(self) -> int:
        """Serve SFTP to those who have `user_key`; return the port."""
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        port = free_port()
        Path("/run/sshd").mkdir(exist_ok=True)
        (self.folder / "sshd_config").write_text(SSHD.format(folder=self.folder, port=port))
        self.start_program("/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config"))
        return port

    def start_scheduler(self) -> str:
        port = free_port()
        self.start("dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        return f"tcp://127.0.0.1:{port}"

    def start_worker(self, scheduler: str, **environment: str) -> Process:
        return self.start(*WORKER, scheduler, **environment)

    def start_fresh_worker(self, scheduler: str, code: Path) -> None:
        """Start a worker that imports our package from another folder."""
        self.start_program(sys.executable, "-m", *WORKER, scheduler, PYTHONPATH=str(code))


@dataclass(frozen=True)
class Nginx:
    """An HTTP server that notes what it sends and receives."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count_bytes(self) -> tuple[int, int]:
        """Return the bytes of all bodies that were sent, and of all requests with their bodies."""
        requests = [line.split() for line in self.log.read_text().splitlines()]
        return sum(int(sent) for _, sent, _, _ in requests), sum(int(received) for _, _, received, _ in requests)


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 server on loopback."""

    client: Any

    def list_keys(self) -> dict[str, int]:
        """Return the size of every object in bytes."""
        listed = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {item["Key"]: item["Size"] for item in listed}

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def download(self, prefix: str, folder: Path) -> Path:
        for key in self.list_keys():
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(key))
        return folder


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0

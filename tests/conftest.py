"""What tests share: a home of their own, a strict AWS on loopback, the product's command line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import hypothesis
import pytest

import awsvault
from tests.fake_aws import ACCOUNT, KEY_ID, MFA_SERIAL, SECRET, FakeAws, furnish
from tests.needs import missing
from tests.terminal import Terminal

pytest_plugins: list[str] = ["tests.pyz"]

# What CI says of one commit must not change from run to run; elsewhere every run looks further.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

PROGRAM = Path(__file__).resolve().parent.parent / "awsvault.py"
# As the program starts itself: to compile the file for each run would be half of all the time.
COMPILED_ONCE = [
    sys.executable, "-c", awsvault.RUN_AS_MODULE, str(PROGRAM.parent), PROGRAM.stem,
]  # fmt: skip
PASSPHRASE = "correct horse battery staple"
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def arn(role):
    """The ARN of a role in the fake's account."""
    return f"arn:aws:iam::{ACCOUNT}:role/{role}"


@dataclasses.dataclass
class Result:
    """How a command ended and what it wrote."""

    argv: list
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)

    def environ(self):
        """The NAME=VALUE lines of stdout (an optional `export ` before them) as a dict."""
        lines = (line.partition("=") for line in self.out.splitlines() if "=" in line)
        return {name.replace("export ", "", 1): value for name, _, value in lines}

    def __str__(self):
        return f"{self.argv}: {self.code}\nstdout:\n{self.out}\nstderr:\n{self.err}"


class Cli:
    """The product, run as a user runs it, in an environment that holds nothing of the tester's.

    `program` is the start of the command line (interpreter and file), `environ` what each run
    gets; a test may change both. Commands have no controlling terminal, except in `terminal`.
    """

    def __init__(self, home, url, program=None):
        self.home = Path(home)
        self.program = program or list(COMPILED_ONCE)
        self.environ = {
            "HOME": str(home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/sh",
            "AWS_VAULT_BACKEND": "file",
            "AWS_VAULT_FILE_ITERATIONS": "8192",
            "AWS_VAULT_FILE_PASSPHRASE": PASSPHRASE,
            "AWS_ENDPOINT_URL_STS": url,
            "AWS_ENDPOINT_URL_IAM": url,
        }
        self._started = []

    @property
    def config_file(self):
        return self.home / ".aws" / "config"

    @property
    def keys(self):
        """The folder of the file vault."""
        return self.home / ".awsvault" / "keys"

    def environment(self, changes=None):
        """`environ` with `changes` laid over it; a value of None removes the name."""
        merged = {**self.environ, **(changes or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def config(self, text):
        """Write ~/.aws/config; indentation common to all lines is dropped."""
        self.config_file.parent.mkdir(mode=0o700, exist_ok=True)
        self.config_file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        self.config_file.chmod(0o600)

    def endpoint_in_config(self, section="default"):
        """Say in the config where STS is, as the environment does: only what the config alone makes
        is filed as aws-vault files it."""
        line = f"endpoint_url = {self.environ['AWS_ENDPOINT_URL_STS']}\n"
        text = self.config_file.read_text() if self.config_file.exists() else ""
        head, mark, rest = text.partition(f"[{section}]\n")
        self.config(f"{head}[{section}]\n{line}{rest}" if mark else f"{text}[{section}]\n{line}")

    def run(self, *args, input=None, env=None, check=None, timeout=60, **popen):
        """Run to the end. `check` is the exit code to insist on; `input` text for its stdin."""
        if input is None:
            popen.setdefault("stdin", subprocess.DEVNULL)
        process = self.popen(*args, env=env, **popen)
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            kill_group(process)
            out, err = process.communicate()
            pytest.fail(f"still running after {timeout} s: {args}\nstdout:\n{out}\nstderr:\n{err}")
        result = Result(list(args), process.returncode, out, err)
        assert check is None or result.code == check, str(result)
        return result

    def popen(self, *args, env=None, **popen):
        """Start it in a session of its own, with pipes; what still runs at the end is killed."""
        popen = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE,
                 "stderr": subprocess.PIPE, "text": True, "cwd": self.home, **popen}  # fmt: skip
        process = subprocess.Popen(
            [*self.program, *map(str, args)],
            env=self.environment(env),
            start_new_session=True,
            **popen,
        )
        self._started.append(process)
        return process

    def terminal(self, *args, env=None, **options):
        """Start it on a pseudo terminal of its own; see tests.terminal."""
        argv = [*self.program, *map(str, args)]
        options.setdefault("cwd", self.home)
        terminal = Terminal(argv, env=self.environment(env), **options)
        self._started.append(terminal)
        return terminal

    def add(self, name="prod", key_id=KEY_ID, secret=SECRET, *flags):
        """Store a key under `name`, as `add --env` does."""
        env = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}
        return self.run("add", name, "--env", *flags, env=env, check=0)

    def exec_environ(self, profile, *flags, env=None, check=0):
        """The environment that `exec` gives to its command."""
        show = [sys.executable, "-I", "-S", "-c", PRINT_ENVIRONMENT]
        return self.run("exec", profile, *flags, "--", *show, env=env, check=check).json()

    def mfa_config(self, *, region="eu-west-1"):
        """A config whose `prod` has jon's MFA device, and the roles above it."""
        text = f"[profile prod]\nregion = {region}\nmfa_serial = {MFA_SERIAL}\n"
        for name in ("admin", "deploy", "audit"):
            text += (
                f"\n[profile {name}]\nregion = {region}\nrole_arn = {arn(name)}\n"
                f"source_profile = prod\nmfa_serial = {MFA_SERIAL}\n"
            )
        self.config(text)

    def close(self):
        for process in self._started:
            kill_group(process)
            if isinstance(process, Terminal):
                process.close()
            else:
                for stream in (process.stdin, process.stdout, process.stderr):
                    if stream is not None:
                        stream.close()
                process.wait(30)


def kill_group(process):
    """SIGKILL to everything in the process's group; no error when nothing is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def home(tmp_path):
    """An empty home directory, 0700."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def fake_aws():
    """A strict AWS with user `jon` and his roles; see tests.fake_aws.furnish."""
    with FakeAws() as fake:
        yield furnish(fake)


@pytest.fixture
def cli(home, fake_aws):
    """The product from source, its HOME in `home`, its AWS `fake_aws`."""
    product = Cli(home, fake_aws.url)
    yield product
    product.close()


@pytest.fixture
def awscli():
    """Path of the AWS CLI of `make test`; skips where pytest was started without it."""
    program = PROGRAM.parent / ".venv-awscli" / "bin" / "aws"
    if not program.exists():
        missing("the AWS CLI in .venv-awscli")
    return str(program)

"""The main job, end to end, on this machine alone: what `make demo` shows.

A strict STS on loopback, a home in a temporary folder, the encrypted file vault, dist/awsvault.pyz
and the real AWS CLI. Each command is printed as a user would type it, with its output and its time.
Exits 1 when a step fails, or when the second exec asked STS for anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.fake_aws import ACCOUNT, KEY_ID, MFA_SERIAL, SECRET, FakeAws, furnish  # noqa: E402

CONFIG = f"""\
[profile prod]
region = eu-west-1
mfa_serial = {MFA_SERIAL}

[profile deploy]
region = eu-west-1
source_profile = prod
role_arn = arn:aws:iam::{ACCOUNT}:role/deploy
mfa_serial = {MFA_SERIAL}
"""
IDENTITY = f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/"


class DemoFailed(Exception):
    """A step did not do what it should; the text says which and how."""


class Demo:
    """A user in a home of his own: runs commands, shows them and keeps their times."""

    def __init__(self, home, programs, url):
        self.home, self.programs, self.times = home, programs, []
        self.environ = {
            "HOME": str(home),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "AWS_VAULT_BACKEND": "file",
            "AWS_VAULT_FILE_PASSPHRASE": "a passphrase for the demo only",
            "AWS_ENDPOINT_URL_STS": url,
            "AWS_PAGER": "",
        }

    def run(self, line, **variables):
        """Run one command line, `variables` written before it; its stdout."""
        words = shlex.split(line)
        argv = [str(path) for word in words for path in self.programs.get(word, [word])]
        shown = [f"{name}={value}" for name, value in variables.items()]
        print("$ " + " ".join([*shown, line]), flush=True)
        started = time.perf_counter()
        done = subprocess.run(
            argv,
            env={**self.environ, **variables},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.times.append((line, time.perf_counter() - started))
        print(done.stdout, end="")
        print(f"  ({self.times[-1][1]:.2f} s)\n", flush=True)
        if done.returncode:
            raise DemoFailed(f"exit status {done.returncode} of: {line}")
        return done.stdout


def programs():
    """What `python3`, `awsvault.pyz` and `aws` mean here; DemoFailed when one is missing."""
    pyz, aws = ROOT / "dist" / "awsvault.pyz", ROOT / ".venv-awscli" / "bin" / "aws"
    for path, target in ((pyz, "make pyz"), (aws, "make demo")):
        if not path.exists():
            raise DemoFailed(f"no {path.relative_to(ROOT)}; {target} makes it")
    return {"python3": [sys.executable], "awsvault.pyz": [pyz], "aws": [aws]}


def play(demo, fake):
    """The steps, in order."""
    print("# the first run unpacks the libraries into a cache, once\n")
    demo.run("python3 awsvault.pyz version")
    print("# store a long-lived key in the vault\n")
    demo.run(
        "python3 awsvault.pyz add prod --env",
        AWS_ACCESS_KEY_ID=KEY_ID,
        AWS_SECRET_ACCESS_KEY=SECRET,
    )
    demo.run("cat .aws/config")
    (demo.home / ".aws" / "config").write_text(CONFIG, encoding="utf-8")
    print("# add an MFA device and a role to the config\n")
    demo.run("cat .aws/config")
    identity = "awsvault.pyz exec deploy {}-- aws sts get-caller-identity"
    print("# a role with MFA: one GetSessionToken, one AssumeRole, then the real AWS CLI\n")
    code = fake.new_code(MFA_SERIAL)
    check_identity(demo.run("python3 " + identity.format(f"--mfa-token {code} ")))
    expect(fake, ["GetSessionToken", "AssumeRole", "GetCallerIdentity"])
    print("# once more, from the cache: no code, and no request but the command's own\n")
    check_identity(demo.run("python3 " + identity.format("")))
    expect(fake, ["GetCallerIdentity"])
    demo.run("python3 awsvault.pyz exec deploy -- true")
    expect(fake, [])
    demo.run("python3 awsvault.pyz list")


def check_identity(text):
    try:
        arn = json.loads(text)["Arn"]
    except (ValueError, KeyError, TypeError):
        raise DemoFailed("the AWS CLI did not tell who it is") from None
    if not arn.startswith(IDENTITY):
        raise DemoFailed(f"the AWS CLI was {arn}, not {IDENTITY}...")


def expect(fake, actions):
    """STS was asked for exactly these since the last call, and refused none."""
    calls, refused = fake.actions(), [call.code for call in fake.calls if call.code]
    fake.clear()
    print(f"# STS was asked for: {', '.join(calls) or 'nothing'}\n")
    if calls != actions or refused:
        raise DemoFailed(f"expected of STS: {', '.join(actions) or 'nothing'} {refused or ''}")


def main():
    home = Path(tempfile.mkdtemp(prefix="awsvault-demo-"))
    try:
        with FakeAws() as fake:
            demo = Demo(home, programs(), furnish(fake).url)
            play(demo, fake)
    except (DemoFailed, subprocess.TimeoutExpired) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("# all steps worked; their times:\n")
    for line, seconds in demo.times:
        print(f"{seconds:8.2f} s  {line}")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

"""The main job on another platform: python -m tests.main_job PYZ COMMAND...

COMMAND starts the Python there; PYZ is the packed file as it is called there. Its HOME is a new
folder of that place's /tmp, on this machine as FOLDER says (for a folder with a system of its own).
With NO_SERVERS set the server and process modes are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fake_aws import ACCOUNT, KEY_ID, MFA_SERIAL, SECRET, FakeAws, furnish

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
CLIENT = """
import json, os, urllib.request
url, token = (os.environ["AWS_CONTAINER_" + n] for n in ("CREDENTIALS_FULL_URI", "AUTHORIZATION_TOKEN"))
answer = urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": token}), timeout=60)
assert json.load(answer)["AccessKeyId"].startswith("ASIA")
assert "AWS_ACCESS_KEY_ID" not in os.environ
"""
HAS_SESSION = (
    "import os, sys; assert os.environ['AWS_ACCESS_KEY_ID'].startswith('ASIA'); sys.exit(7)"
)
IN_CONFIG = "import os; assert 'credential_process' in open(os.environ['AWS_CONFIG_FILE']).read()"


class Place:
    """Runs the product on a platform; counts what went wrong."""

    def __init__(self, pyz: str, python: list[str], url: str):
        self.python, self.failed = python, 0
        self.program = [*python, pyz]
        # FOLDER is where that system's root is on this machine.
        self.root = os.environ.get("FOLDER", "")
        self.home = Path(tempfile.mkdtemp(dir=f"{self.root}/tmp"))
        self.environ = {
            "HOME": str(self.home).replace(self.root, "", 1),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            # A processor that newer glibc has fast code for; only qemu knows the variable.
            "QEMU_CPU": "cortex-a72",
            "AWS_VAULT_BACKEND": "file",
            "AWS_VAULT_FILE_PASSPHRASE": "correct horse",
            "AWS_VAULT_FILE_ITERATIONS": "8192",
            "AWS_ENDPOINT_URL_STS": url,
        }

    def step(self, what, *args, status=0, environ=None, says=""):
        """Run one command line; its exit status and a part of what it says are insisted on."""
        began = time.monotonic()
        done = subprocess.run(
            [*self.program, *args],
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        good = done.returncode == status and says in done.stdout + done.stderr
        self.failed += not good
        print(
            f"{'ok' if good else 'FAILED':6} {time.monotonic() - began:6.2f} s  {what}", flush=True
        )
        if not good:
            print(f"exit status {done.returncode}\n{done.stdout}{done.stderr}", flush=True)

    def shell(self, code):
        """The words that run code in that place's Python, from its own PATH."""
        # In a folder with a system of its own, after `platform-run FOLDER`.
        return ["--", self.python[2 if self.root else 0], "-c", code]


def run(place, fake):
    """Do everything once."""
    place.step("version", "version", "--json", says="openssl")
    place.step("add", "add", "prod", "--env",
               environ={"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET})  # fmt: skip
    (place.home / ".aws").mkdir(exist_ok=True)
    (place.home / ".aws" / "config").write_text(CONFIG)
    place.step("list", "list", says="deploy")
    code = fake.new_code(MFA_SERIAL)
    place.step("exec", "exec", "deploy", "--mfa-token", code, *place.shell(HAS_SESSION), status=7)
    asked = len(fake.calls)
    place.step("exec, cached", "exec", "deploy", *place.shell(HAS_SESSION), status=7)
    place.step("export", "export", "--format=json", "deploy", says="SessionToken")
    place.failed += asked != 2 or len(fake.calls) != asked
    if not os.environ.get("NO_SERVERS"):
        place.step("exec --server", "exec", "--server", "deploy", *place.shell(CLIENT))
        place.step("exec --process", "exec", "--process", "deploy", *place.shell(IN_CONFIG))
    place.step("an unknown profile", "exec", "nope", *place.shell("pass"), status=2, says="nope")
    place.step("without a cache", "export", "--format=json", "deploy", says="SessionToken",
               environ={"AWS_VAULT_CACHE_DIR": "/proc/none"})  # fmt: skip
    place.step("backends", "backends", says="file")
    place.step("version --verify", "version", "--verify", says="intact")
    place.step("clear", "clear")
    place.step("remove", "remove", "--force", "prod")


def main(argv):
    """Run all steps; the number of those that failed."""
    with FakeAws() as fake:
        furnish(fake)
        place = Place(argv[0], argv[1:], fake.url)
        run(place, fake)
    print(f"{place.failed} failed")
    return min(place.failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

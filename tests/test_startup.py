"""What a cached exec costs: which modules it loads, which files it opens, what it starts."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests import tracing
from tests.conftest import PROGRAM, arn

# What `import awsvault` may not load, and a cached exec neither, as far as cryptography does not
# need it (it imports typing by itself, and hashlib's OpenSSL is never needed).
FORBIDDEN = {
    "botocore", "urllib3", "http.server", "http.client", "ssl", "socket", "urllib.request",
    "urllib.parse", "dataclasses", "inspect", "logging", "pathlib", "tempfile", "secrets", "uuid",
    "shutil", "subprocess", "ctypes", "hashlib", "_hashlib", "asyncio", "email", "zipfile",
    "multiprocessing", "threading", "random", "difflib", "traceback",
}  # fmt: skip
RECORD = """
import json, os, sys
before = set(sys.modules)
import awsvault
class Recorder(awsvault.World):
    def replace_process(self, path, argv, environ):
        loaded = sorted(set(sys.modules) - before)
        print(json.dumps(loaded))
        sys.stdout.flush()
        os._exit(0)
raise SystemExit(awsvault.main(sys.argv[1:], Recorder()))
"""
CONFIG = f"""
[profile prod]
region = eu-west-1

[profile admin]
source_profile = prod
role_arn = {arn("admin")}
region = eu-west-1
"""


@pytest.fixture
def vault(cli):
    cli.config(CONFIG)
    cli.add("prod")
    return cli


def loaded_by(cli, *argv, flags=("-S",)):
    """Names of the modules that are there just before the command starts, less the bare ones."""
    paths = [path for path in sys.path if path.endswith("site-packages")]
    env = {"PYTHONPATH": ":".join([str(PROGRAM.parent), *paths])}
    line = [sys.executable, *flags, "-c", RECORD, *argv]
    done = subprocess.run(
        line, env=cli.environment(env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def packages(names):
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("profile", ["prod", "admin"])
def test_modules_of_a_cached_exec(vault, fake_aws, profile):
    vault.exec_environ(profile)
    count = fake_aws.count()
    loaded = loaded_by(vault, "exec", profile, "--", "true")
    assert fake_aws.count() == count
    assert "cryptography" in loaded
    assert "argparse" not in loaded  # a line without flags needs no parser
    assert not loaded & FORBIDDEN
    assert not packages(loaded) & FORBIDDEN


def test_modules_of_an_exec_with_stored_keys(vault):
    assert not loaded_by(vault, "exec", "-n", "prod", "--", "true") & FORBIDDEN


def test_a_cold_exec_is_where_the_libraries_come_in(vault):
    assert {"botocore", "urllib3"} <= packages(loaded_by(vault, "exec", "prod", "--", "true"))


@pytest.mark.skipif(not tracing.available(), reason="no strace that may trace")
def test_what_is_opened_does_not_grow_with_the_vault(vault, fake_aws):
    vault.exec_environ("admin")
    few = opened(vault)
    item = (vault.keys / "prod").read_bytes()
    for number in range(300):
        (vault.keys / f"team-{number}").write_bytes(item)
        (vault.keys / f"team-{number}").chmod(0o600)
    profiles = "".join(f"[profile team-{n}]\nregion = eu-west-1\n" for n in range(1000))
    vault.config(CONFIG + profiles)
    assert opened(vault) == few
    assert len([path for path in few if "/keys/" in path]) == 2


def opened(cli):
    """Files below HOME that a cached exec opens, sorted."""
    log = cli.home.parent / "strace.log"
    line = [
        "strace",
        "-f",
        "-q",
        "-y",
        "-o",
        str(log),
        "-e",
        "trace=open,openat,socket,connect,execve",
    ]
    subprocess.run(
        [*line, *cli.program, "exec", "admin", "--", "true"],
        env=cli.environment(), stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    text = log.read_text()
    assert "socket(" not in text
    assert len(re.findall(r"execve\(.*= 0", text)) == 2
    # With -y the path that was opened stands behind the new descriptor.
    paths = re.findall(r"open(?:at)?\(.*O_RD(?!.*O_DIRECTORY).*= \d+<([^>]+)>$", text, re.MULTILINE)
    return sorted(path for path in paths if path.startswith(str(cli.home)))

"""Real SDKs as the command of `exec --server`: boto3, the AWS CLI, JavaScript's v3 and Go's v2."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import arn
from tests.needs import missing, need

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ROOT / "tests" / "clients"
BUILD = ROOT / ".build"
CONFIG = f"""\
[profile prod]
region = eu-west-1

[profile admin]
region = eu-west-1
source_profile = prod
role_arn = {arn("admin")}
"""
NAMES = ("boto3", "cli", "javascript", "go")
MODES = ("--ecs-server", "--ec2-server")
# Starts every client of a list at once, and prints what each printed.
ALL_AT_ONCE = """
import json, subprocess, sys
started = [subprocess.Popen(line, stdout=-1, stderr=-1, stdin=-3, text=True) for line in json.loads(sys.argv[1])]
print(json.dumps([[*process.communicate(), process.returncode] for process in started]))
"""


def built_once(name, sources, build):
    """Run `build` unless it has been run for these very files; other processes wait meanwhile."""
    BUILD.mkdir(exist_ok=True)
    content = "".join(path.read_text(encoding="utf-8") for path in sources)
    stamp = BUILD / f"{name}.stamp"
    with open(BUILD / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != content:
            build()
            stamp.write_text(content, encoding="utf-8")


def run_tool(*line, cwd):
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        missing(f"what {line[0]} makes ({done.stderr.strip().splitlines()[-1:]})")


@pytest.fixture(scope="session")
def javascript_modules():
    """The folder with the JavaScript SDK of the lock file."""
    need("node", "npm")
    folder = BUILD / "npm"
    sources = [CLIENTS / "js" / name for name in ("package.json", "package-lock.json")]

    def install():
        folder.mkdir(exist_ok=True)
        for path in sources:
            shutil.copy(path, folder)
        run_tool("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)

    built_once("npm", sources, install)
    return folder


@pytest.fixture(scope="session")
def go_client():
    """The compiled Go client."""
    if not shutil.which("go"):
        pytest.skip("Go is not installed")
    program = BUILD / "go-client"
    sources = [CLIENTS / "go" / name for name in ("main.go", "go.mod", "go.sum")]
    built_once(
        "go", sources,
        lambda: run_tool("go", "build", "-mod=readonly", "-o", str(program), ".", cwd=CLIENTS / "go"),
    )  # fmt: skip
    return program


class Clients:
    """The command lines of all clients that this machine has."""

    def __init__(self, request):
        self.request = request

    def line(self, name, *words):
        """The command line of one client: identity, fetch N or renew."""
        get = self.request.getfixturevalue
        if name == "boto3":
            return [sys.executable, str(CLIENTS / "boto_client.py"), *words]
        if name == "javascript":
            modules = f"CLIENT_MODULES={get('javascript_modules')}"
            return [
                "env",
                modules,
                shutil.which("node"),
                str(CLIENTS / "js" / "client.mjs"),
                *words,
            ]
        if name == "go":
            return [str(get("go_client")), *words]
        return [get("awscli"), "sts", "get-caller-identity", "--output", "json"]

    def have(self, *names):
        """Those of some clients that are there."""
        return [name for name in names if name != "go" or shutil.which("go")]


@pytest.fixture
def clients(request):
    return Clients(request)


@pytest.fixture
def ready(cli):
    cli.config(CONFIG)
    cli.add()
    return cli


def printed(cli, flags, line, **options):
    """What a client prints as the command."""
    return cli.run("exec", *flags, "admin", "--", *line, check=0, **options).json()


def all_at_once(cli, flags, lines, **options):
    """What several clients print as one command; each must end well."""
    line = [sys.executable, "-c", ALL_AT_ONCE, json.dumps(lines)]
    answers = printed(cli, flags, line, timeout=120, **options)
    assert not any(code for _, _, code in answers), answers
    return [json.loads(out) for out, _, _ in answers]


def is_admin(answer):
    """Whether a client signed as the role that the server serves."""
    return ":assumed-role/admin/" in answer.get("arn", answer.get("Arn"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_each_client_signs_as_the_role(ready, clients, name, mode):
    assert is_admin(printed(ready, [mode], clients.line(name, "identity")))


@pytest.mark.parametrize("name", NAMES)
def test_both_protocols_at_once(ready, clients, name):
    assert is_admin(printed(ready, ["--server"], clients.line(name, "identity")))


@pytest.mark.parametrize("mode", MODES)
def test_a_proxy_is_not_asked(ready, clients, fake_aws, mode):
    dead = "http://127.0.0.1:9"
    env = {"HTTP_PROXY": dead, "http_proxy": dead, "NO_PROXY": f"127.0.0.1:{fake_aws.port}"}
    lines = [clients.line(name, "identity") for name in clients.have(*NAMES)]
    assert all(map(is_admin, all_at_once(ready, [mode], lines, env=env)))


HOSTILE = {
    "keys": "aws_access_key_id = AKIADUMMYHOSTILE0001\naws_secret_access_key = dummy\n",
    "process": "credential_process = /bin/false\n",
    "sso": "sso_start_url = https://example.com/start\nsso_region = eu-west-1\n"
    "sso_account_id = 111111111111\nsso_role_name = other\n",
    "role": "role_arn = arn:aws:iam::111111111111:role/other\nsource_profile = static\n",
    "web identity": "role_arn = arn:aws:iam::111111111111:role/other\n"
    "web_identity_token_file = /nonexistent\n",
    "login": "login_session = arn:aws:iam::111111111111:user/other\n",
}
STATIC = (
    "[profile static]\naws_access_key_id = AKIADUMMYHOSTILE0002\naws_secret_access_key = dummy\n"
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_default_does_not_win(ready, clients, kind, mode):
    ready.config(f"{CONFIG}\n[default]\nregion = eu-west-1\n{HOSTILE[kind]}\n{STATIC}")
    lines = [clients.line(name, "identity") for name in clients.have(*NAMES)]
    assert all(map(is_admin, all_at_once(ready, [mode], lines)))


@pytest.mark.parametrize("mode", MODES)
def test_a_hostile_credentials_file_does_not_win(ready, clients, mode):
    path = ready.home / ".aws" / "credentials"
    path.write_text(f"[default]\n{HOSTILE['keys']}", encoding="utf-8")
    env = {"AWS_ACCESS_KEY_ID": "AKIADUMMYHOSTILE0003", "AWS_SECRET_ACCESS_KEY": "dummy",
           "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true",
           "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ""}  # fmt: skip
    lines = [clients.line(name, "identity") for name in clients.have(*NAMES)]
    assert all(map(is_admin, all_at_once(ready, [mode], lines, env=env)))


def test_one_renewal_is_seen_by_a_running_program(ready, clients, fake_aws):
    # Under five minutes all of them ask again at each call.
    fake_aws.lifetime = 200
    names = clients.have("boto3", "javascript", "go")
    answers = all_at_once(ready, ["--ecs-server"], [clients.line(name, "renew") for name in names])
    for answer in answers:
        assert answer["first"] != answer["next"]
        assert fake_aws.sessions[answer["next"]].action == "AssumeRole"


@pytest.mark.parametrize("mode", MODES)
def test_four_clients_with_a_thousand_requests_each(ready, clients, mode):
    names = clients.have("boto3", "boto3", "javascript", "go")
    lines = [clients.line(name, "fetch", "1000") for name in names]
    assert all_at_once(ready, [mode], lines) == [{"fetched": 1000}] * len(lines)


def test_a_client_gets_an_error_when_the_server_was_killed(ready, clients):
    code = (
        "import os, signal, subprocess, sys\n"
        "for name in os.listdir('/proc'):\n"
        "    try: words = open(f'/proc/{name}/cmdline').read().split('\\0') if name.isdigit() else []\n"
        "    except OSError: continue\n"
        "    if words[-3:-1] == ['_serve', str(os.getpid())]: os.kill(int(name), signal.SIGKILL)\n"
        "sys.exit(subprocess.run(sys.argv[1:]).returncode)\n"
    )
    line = [sys.executable, "-c", code, *clients.line("boto3", "identity")]
    result = ready.run("exec", "--ecs-server", "admin", "--", *line)
    assert result.code == 1
    assert "CredentialRetrievalError" in result.err

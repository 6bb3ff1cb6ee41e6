"""Where secrets are, and where they must never be."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys

import pytest

import awsvault
from tests import tracing
from tests.conftest import PASSPHRASE, arn
from tests.fake_aws import KEY_ID, MFA_SERIAL, SECRET

KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
NO_PASSPHRASE = {"AWS_VAULT_FILE_PASSPHRASE": None}
CODE = "123456"
CONFIG = f"""
[profile prod]
region = eu-west-1
mfa_serial = {MFA_SERIAL}
mfa_process = sh -c 'cat {{home}}/code'

[profile plain]

[profile admin]
source_profile = plain
role_arn = {arn("admin")}
"""
strace = pytest.mark.skipif(not tracing.available(), reason="no strace that may trace")


@pytest.fixture
def vault(cli):
    """The product with keys of `prod` (MFA by a command) and `plain` (a role above it)."""
    cli.config(CONFIG.format(home=cli.home))
    (cli.home / "code").write_text(CODE)
    (cli.home / "passphrase").write_text(PASSPHRASE)
    cli.add("prod")
    cli.add("plain")
    return cli


def issued(fake):
    """Every secret that the fake AWS handed out."""
    return [text for one in fake.sessions.values() for text in (one.secret, one.token)]


# ======================================================================
# Arguments and environments of other programs
# ======================================================================

LINES = [
    ["add", "new", "--env"],
    ["exec", "prod", "--", "printenv"],
    ["exec", "admin", "--", "printenv"],
    ["exec", "plain", "--no-session", "--", "printenv"],
    ["export", "prod", "--format=json"],
    ["exec", "--json", "admin"],
    ["list"],
    ["remove", "-f", "plain"],
    ["clear"],
    ["version"],
    ["help"],
]


@strace
@pytest.mark.parametrize("by_command", [False, True], ids=["variable", "passphrase command"])
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_no_program_is_given_a_secret(vault, fake_aws, line, by_command):
    changes = dict(KEYS if "--env" in line else {})
    if by_command:
        changes.update(NO_PASSPHRASE)
        changes["AWS_VAULT_FILE_PASSPHRASE_COMMAND"] = f"cat {vault.home}/passphrase"
    traced = tracing.trace([*vault.program, *line], env=vault.environment(changes), cwd=vault.home)
    assert traced.code == 0, traced.err
    command = line[line.index("--") + 1 :] if "--" in line else None
    handed_out = issued(fake_aws)
    own = [SECRET] if "--no-session" in line else []
    secrets = [PASSPHRASE, CODE, *({SECRET} - set(own))]
    tracing.assert_hidden(traced, secrets, command=command, command_secrets=[*handed_out, *own])
    for one in traced.execs[1:]:
        assert b"AWS_VAULT_FILE_PASSPHRASE" not in one.environ
    if command:
        assert traced.execs[-1].argv == [word.encode() for word in command]


@strace
def test_the_cache_starts_nothing_and_connects_nowhere(vault):
    vault.exec_environ("admin")
    log = vault.home / "strace.log"
    line = ["strace", "-f", "-q", "-o", str(log), "-e", "trace=process,network"]
    subprocess.run(
        [*line, *vault.program, "exec", "admin", "--", "true"],
        env=vault.environment(), check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    calls = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    assert calls.count("execve") >= 2
    assert not {"socket", "connect", "fork", "vfork", "clone", "clone3"} & set(calls)


# ======================================================================
# What is printed
# ======================================================================


@pytest.mark.parametrize("how", ["fine", "wrong code", "refused", "network", "damaged", "bug"])
def test_debug_shows_no_secret(vault, fake_aws, how):
    env = {"PYTHONFAULTHANDLER": "1", "AWS_MAX_ATTEMPTS": "1"}
    line = ["--debug", "exec", "prod", "--", "true"]
    if how == "wrong code":
        (vault.home / "code").write_text("999999")
    elif how == "refused":
        fake_aws.fail(status=403, code="AccessDenied")
    elif how == "network":
        env["AWS_ENDPOINT_URL_STS"] = "http://127.0.0.1:9"
    elif how == "damaged":
        item = vault.keys / "prod"
        item.write_bytes(item.read_bytes()[:-1])
    elif how == "bug":
        # A library that breaks in the middle of a request, with everything in its frames.
        broken = vault.home / "broken" / "botocore"
        broken.mkdir(parents=True)
        (broken / "__init__.py").write_text("raise RuntimeError('it broke')")
        env["PYTHONPATH"] = str(broken.parent)
    done = vault.run(*line, env=env)
    assert "awsvault: debug:" in done.err
    assert ("Traceback" in done.err) == (how == "bug")  # a failure that is no bug needs none
    assert (done.code == 70) == (how == "bug")
    for secret in [SECRET, PASSPHRASE, CODE, "999999", *issued(fake_aws)]:
        assert secret not in done.err
        assert base64.b64encode(secret.encode()).decode() not in done.err


def test_without_debug_no_traceback(vault, fake_aws):
    broken = vault.home / "broken" / "botocore"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('it broke')")
    done = vault.run("exec", "prod", "--", "true", env={"PYTHONPATH": str(broken.parent)}, check=70)
    assert "Traceback" not in done.err
    assert done.err.count("\n") == 2


def test_list_and_errors_show_no_secret(vault, fake_aws):
    vault.exec_environ("admin")
    text = "".join(
        str(vault.run(*line).out) + vault.run(*line).err
        for line in (["list"], ["list", "--sessions"], ["exec", "x"], ["clear", "prod"], ["help"])
    )
    for secret in [SECRET, PASSPHRASE, KEY_ID, *issued(fake_aws), *fake_aws.sessions]:
        assert secret not in text


# ======================================================================
# What is on the disk
# ======================================================================


def test_nothing_but_items_and_nothing_in_plain(vault, fake_aws):
    (vault.home / "code").write_text("x")
    (vault.home / "passphrase").unlink()
    vault.endpoint_in_config()
    for profile, flags in (("prod", ["-t", CODE]), ("plain", []), ("admin", [])):
        line = vault.config_file.read_text().replace("mfa_process", "#mfa_process")
        vault.config_file.write_text(line)
        vault.exec_environ(profile, *flags)
    vault.add("team/a b%c")
    vault.run("remove", "-f", "plain", check=0)
    secrets = [SECRET, PASSPHRASE, CODE, KEY_ID, *issued(fake_aws), *fake_aws.sessions]
    encoded = [base64.b64encode(text.encode()).rstrip(b"=")[:-2] for text in secrets]
    seen = set()
    for path in vault.home.rglob("*"):
        seen.add(path.relative_to(vault.home).parts[0])
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode == 0o700, path
            continue
        assert mode == 0o600 or path.name == "code", path
        content = path.read_bytes()
        for secret, base in zip(secrets, encoded):
            assert secret.encode() not in content, path
            assert base not in content, path
            assert secret not in path.name
    assert seen == {".aws", ".awsvault", "code"}
    for path in vault.keys.iterdir():
        assert len(path.read_bytes().split(b".")) == 5
    names = [path.name for path in vault.keys.iterdir()]
    assert "team%2Fa b%25c" in names
    # The sessions of what was removed went with it.
    assert [name.partition(",")[0] for name in names if "," in name] == ["sts.GetSessionToken"]


def test_the_fingerprint_stays_in_the_item(vault, fake_aws):
    vault.exec_environ("admin")
    import awsvault

    world = awsvault.World()
    store = awsvault.FileKeystore(
        world, str(vault.keys), awsvault.Passphrase(world, awsvault.Secret(PASSPHRASE)), 8192
    )
    (key,) = [key for key in store.keys() if "," in key]
    fingerprint = awsvault.parse_json_object(store.get(key).data.reveal())["Fingerprint"]
    for path in vault.home.rglob("*"):
        assert fingerprint[:16] not in path.name
        assert not path.is_file() or fingerprint.encode()[:16] not in path.read_bytes()
    assert fingerprint[:16] not in vault.run("list").out
    assert fingerprint[:16] not in vault.run("--debug", "exec", "admin", "--", "true").err


# ======================================================================
# In memory
# ======================================================================


def test_no_core_file_while_secrets_are_held(vault):
    code = "with open('/proc/self/limits') as f: print([l for l in f if 'core' in l][0])"
    reader = f'{sys.executable} -I -S -c "{code}"'
    script = f"grep core /proc/$PPID/limits >{vault.home}/limits; cat {vault.home}/passphrase"
    (vault.home / "ask").write_text(f"#!/bin/sh\n{script}\n")
    (vault.home / "ask").chmod(0o755)
    vault.program = ["/bin/sh", "-c", 'ulimit -S -c 1000; exec "$@"', "sh", *vault.program]
    line = [f"--file-passphrase-command={vault.home}/ask", "exec", "plain", "--"]
    done = vault.run(*line, "sh", "-c", reader, env=NO_PASSPHRASE, check=0)
    assert (vault.home / "limits").read_text().split()[4] == "0"
    # In blocks of 512 or of 1024 bytes, as the shell likes.
    assert done.out.split()[4] in ("512000", "1024000")


# ======================================================================
# Where the passphrase comes from
# ======================================================================


def pipe_with(text):
    read, write = os.pipe()
    os.write(write, text)
    os.close(write)
    return read


def from_variable(vault, text):
    return [], {"AWS_VAULT_FILE_PASSPHRASE": text}, ()


def from_command(vault, text):
    (vault.home / "given").write_text(text)
    return [f"--file-passphrase-command=cat '{vault.home}/given'"], {}, ()


def from_command_variable(vault, text):
    (vault.home / "given").write_text(text)
    return [], {"AWS_VAULT_FILE_PASSPHRASE_COMMAND": f"cat '{vault.home}/given'"}, ()


def from_descriptor(vault, text):
    fd = pipe_with(text.encode())
    return [f"--file-passphrase-fd={fd}"], {}, (fd,)


def from_descriptor_variable(vault, text):
    fd = pipe_with(text.encode())
    return [], {"AWS_VAULT_FILE_PASSPHRASE_FD": str(fd)}, (fd,)


# First the strongest.
SOURCES = [from_descriptor, from_command, from_descriptor_variable, from_command_variable,
           from_variable]  # fmt: skip


@pytest.mark.parametrize("stronger", range(len(SOURCES)))
def test_the_stronger_source_wins(vault, stronger):
    """With the right passphrase from one source and a wrong one from every weaker one."""
    flags, env, descriptors = [], {}, ()
    for rank in range(stronger, len(SOURCES)):
        text = PASSPHRASE if rank == stronger else "wrong"
        more_flags, more_env, more_descriptors = SOURCES[rank](vault, text)
        if rank > stronger and SOURCES[stronger] in (from_command, from_command_variable):
            # Both write the file that the command reads.
            (vault.home / "given").write_text(PASSPHRASE)
        flags += more_flags
        env.update(more_env)
        descriptors += more_descriptors
    done = vault.run(
        *flags, "exec", "plain", "--", "echo", "open", env={**NO_PASSPHRASE, **env},
        pass_fds=descriptors,
    )  # fmt: skip
    for fd in descriptors:
        os.close(fd)
    assert done.out == "open\n", str(done)


@pytest.mark.parametrize(
    ("source", "ending", "opens"),
    [
        (from_variable, "", True),
        (from_variable, "\n", False),
        (from_command, "\n", True),
        (from_command, "\r\n", True),
        (from_command, "\n\n", False),
        (from_command, " ", False),
        (from_descriptor, "", True),
        (from_descriptor, "\n", True),
        (from_descriptor, "\n\n", False),
    ],
)
def test_one_newline_is_removed_where_programs_print_one(vault, source, ending, opens):
    flags, env, descriptors = source(vault, PASSPHRASE + ending)
    line = [*flags, "exec", "plain", "--", "echo", "open"]
    done = vault.run(*line, env={**NO_PASSPHRASE, **env}, pass_fds=descriptors)
    for fd in descriptors:
        os.close(fd)
    assert (done.code, done.out) == ((0, "open\n") if opens else (1, ""))


def test_the_passphrase_descriptor_is_closed_in_the_command(vault):
    path = vault.home / "passphrase"
    with path.open() as file:
        show = f"ls /proc/self/fd | grep -c '^{file.fileno()}$'; readlink /proc/self/fd/*; true"
        flag = f"--file-passphrase-fd={file.fileno()}"
        line = [flag, "exec", "plain", "--", "sh", "-c", show]
        done = vault.run(*line, env=NO_PASSPHRASE, pass_fds=(file.fileno(),), check=0)
    assert done.out.startswith("0\n")
    assert str(path) not in done.out


@pytest.mark.parametrize("fd", ["1", "2", "99999999999", "-1", "x"])
@pytest.mark.parametrize("flag", ["--file-passphrase-fd", "--mfa-token-fd"])
def test_what_is_no_descriptor_to_read(vault, fd, flag):
    done = vault.run("exec", f"{flag}={fd}", "plain", "--", "true", check=2)
    assert done.err.startswith(f"awsvault: error: {flag}")


def test_standard_input_as_the_passphrases_descriptor(vault):
    show = "cat; readlink /proc/self/fd/3; echo end"
    done = vault.run(
        "--file-passphrase-fd=0", "exec", "plain", "--", "sh", "-c", show,
        env=NO_PASSPHRASE, input=PASSPHRASE + "\n", check=0,
    )  # fmt: skip
    assert done.out == "end\n"


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_what_is_printed_never_lands_in_a_file(vault, closed):
    """Without a standard descriptor the next file that is opened gets its number."""
    vault.program = ["/bin/sh", "-c", f'"$@" {closed}', "sh", *vault.program]
    vault.run("add", "new", "--env", env=KEYS, check=0)
    vault.run("--debug", "exec", "new", "--", "true", check=0)
    vault.run("exec", "nonesuch", "--", "true", check=2)
    del vault.program[:4]
    assert vault.config_file.read_text().endswith("\n[profile new]\n")
    for path in (vault.home / ".awsvault").rglob("*"):
        assert not path.is_file() or b"awsvault: " not in path.read_bytes()
        assert not path.is_file() or b"Added" not in path.read_bytes()
    assert vault.exec_environ("new", env={"AWS_VAULT_NO_INPUT": "1"})["AWS_VAULT"] == "new"
    show = ["sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >$HOME/seen"]
    line = ["exec", "new", "--", *show]
    vault.program = ["/bin/sh", "-c", f'"$@" {closed}; true', "sh", *vault.program]
    vault.run(*line, check=0)
    assert "awsvault" not in (vault.home / "seen").read_text()


def test_the_passphrase_command_has_no_shell_and_no_secret(vault):
    vault.exec_environ("plain")
    marker = vault.home / "marker"
    script = vault.home / "ask me"
    script.write_text(f'#!/bin/sh\nenv >"{marker}"; printf "%s" "$2"\n')
    script.chmod(0o755)
    command = f"'{script}' '$(touch {vault.home}/ran)' '{PASSPHRASE}'"
    env = {
        **NO_PASSPHRASE,
        **KEYS,
        "AWS_SESSION_TOKEN": "stale",
        "AWS_VAULT_FILE_PASSPHRASE_COMMAND": command,
        "OP_SESSION_x": "another program's",
    }
    vault.run("exec", "plain", "--", "true", env=env, check=0)
    assert not (vault.home / "ran").exists()
    seen = marker.read_text()
    assert "OP_SESSION_x=another" in seen
    assert not re.search(r"^AWS_(ACCESS|SECRET|SESSION)|PASSPHRASE=", seen, re.MULTILINE)


def test_what_the_passphrase_command_asks_goes_to_the_terminal(vault):
    script = vault.home / "ask"
    script.write_text('#!/bin/sh\nprintf "Which? " >&2; read -r answer; echo "$answer"\n')
    script.chmod(0o755)
    line = [f"--file-passphrase-command={script}", "exec", "plain", "--", "cat"]
    with open(vault.home / "passphrase", encoding="utf-8") as stdin:
        terminal = vault.terminal(*line, env=NO_PASSPHRASE, stdin=stdin, stdout=subprocess.PIPE)
        terminal.expect("Which?")
        terminal.send_line(PASSPHRASE)
        out, _ = terminal.process.communicate(timeout=60)
    assert out.decode() == PASSPHRASE


# ======================================================================
# URLs
# ======================================================================


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://sts.amazonaws.com", "https://sts.amazonaws.com"),
        ("http://[::1]:8080/path", "http://[::1]:8080"),
        ("http://user:pw@host:1/key?apikey=k#f", "http://host:1"),
        ("http://user:p w@host:1/", "http://host:1"),
        ("socks5://user:pw@host", "socks5://host"),
        ("http://user:pw@host:port", "http://..."),
        ("http://user:pw@host:999999", "http://..."),
        ("http://user:12/34@host", "http://..."),
        ("http://user:12?34@host", "http://..."),
        ("http://host/user@example.com", "http://..."),
        ("http://user:pw@ho\x1bst/", "http://ho\\x1bst"),
        ("host", "host"),
        ("user:pw@host:1", "host:1"),
        ("user:pw@http://host", "..."),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_password(url, shown):
    assert awsvault.shown_url(url) == shown


def test_an_error_shows_no_more_of_the_urls_in_it():
    text = "'http://u:p'w@h:1/x?y=z' (ftp://u:pw@h/a), \"http://k@[::1]:2/\". jon@example.com:x"
    shown = "'http://h:1' (ftp://h), \"http://[::1]:2\". jon@example.com:x"
    error = awsvault.AwsVaultError(text, text)
    assert (error.message, error.hint, str(error)) == (shown, shown, shown)


URLS = {
    "HTTPS_PROXY": [
        "socks5://USER:WORD@127.0.0.1:9", "http://USER:WORD@127.0.0.1:9/WORD?WORD",
        "http://USER:WORD@127.0.0.1:9x", "http://USER:WORD@127.0.0.1:999999",
        "http://USER:WORD WORD@127.0.0.1:9", "http://USER:WORD@[::1", "USER:WORD@127.0.0.1:9",
        "http://USER:WORD@127.0.0.1:WORD", "http://USER:WORD/WORD@127.0.0.1:9",
    ],
    "AWS_ENDPOINT_URL_STS": [
        "http://127.0.0.1:9/WORD?apikey=WORD", "http://USER:WORD@127.0.0.1:9",
        "http://USER:WORD WORD@127.0.0.1", "https://USER:WORD@[::1", "http://example.com/?k=WORD",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "url"), [(name, url) for name, urls in URLS.items() for url in urls]
)
def test_no_line_of_ours_quotes_a_url_s_secrets(variable, url, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv(variable, url)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable == "HTTPS_PROXY":
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    world = awsvault.World()
    world.debugging = True
    (tmp_path / "config").write_text("[profile prod]\n")
    keys = awsvault.Credentials(KEY_ID, awsvault.Secret(SECRET))
    try:
        target = awsvault.load_profile(awsvault.load_config(world), "prod", {}, world.environ, [])
        awsvault.Aws(world).session("GetSessionToken", {}, keys, target.endpoint)
    except awsvault.AwsVaultError as error:
        awsvault.show_error(world, error)
    shown = capfd.readouterr().err
    assert "awsvault: error: " in shown
    assert not {"USER", "WORD"} & set(re.findall("[A-Z]+", shown))

"""The product on native keystores: what it costs, how one is chosen, what it says when one fails."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest

from tests import tracing
from tests.desktop import Desktop, GoSecretService, make_gpg_key
from tests.fake_aws import KEY_ID, SECRET
from tests.fakes import Fakes
from tests.needs import need

TOOLS = {b"secret-tool", b"busctl", b"gdbus", b"kwallet-query", b"pass"}
CONFIG = "[profile prod]\nregion = eu-west-1\n"


@pytest.fixture
def desktop():
    made = Desktop()
    yield made
    made.close()


@pytest.fixture
def native(cli, desktop):
    """The product in the desktop's home and on its bus, with no keystore named."""

    def on(backend=None, **environ):
        cli.home = desktop.home
        cli.environ.update(desktop.environ)
        cli.environ.update({"AWS_VAULT_BACKEND": backend, **environ})
        return cli

    return on


@pytest.fixture
def secret_service(native, desktop):
    desktop.start_bus()
    desktop.gnome_keyring()
    return native("secret-service")


@pytest.fixture
def kwallet(native, desktop):
    desktop.start_bus()
    desktop.kwalletd()
    return native("kwallet")


@pytest.fixture
def password_store(native, desktop):
    need("pass")
    folder = desktop.folder / "gpg"
    key = make_gpg_key(folder, desktop.environ)
    desktop.environ["GNUPGHOME"] = str(folder)
    environ = desktop.environ
    subprocess.run(["pass", "init", key], env=environ, check=True, capture_output=True)
    yield native("pass")
    subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=True, timeout=30)


def index_of(cli):
    files = list((cli.home / ".awsvault" / "index").iterdir())
    assert [oct(path.stat().st_mode & 0o777) for path in files] == ["0o600"] * len(files)
    return [json.loads(path.read_text()) for path in files]


class TestCachedSession:
    """A hit reads the key and the session: two calls of a tool, no probing, no listing."""

    @pytest.mark.parametrize("backend", ["secret_service", "kwallet", "password_store"])
    def test_at_most_two_tool_calls_and_no_secret_in_sight(self, request, fake_aws, backend):
        cli = request.getfixturevalue(backend)
        cli.config(CONFIG)
        cli.add()
        first = cli.exec_environ("prod")
        made = fake_aws.count()
        assert made == 1
        assert cli.exec_environ("prod")["AWS_SESSION_TOKEN"] == first["AWS_SESSION_TOKEN"]
        assert fake_aws.count() == made
        if not tracing.available():
            pytest.skip("no strace")
        command = ["/bin/true"]
        argv = [*cli.program, "exec", "prod", "--", *command]
        traced = tracing.trace(argv, env=cli.environment(), cwd=cli.home)
        assert traced.code == 0, traced.err
        names = [one.argv[0].rpartition(b"/")[2] for one in traced.execs if one.started]
        assert 1 <= len([name for name in names if name in TOOLS]) <= 2, names
        session = [first["AWS_SECRET_ACCESS_KEY"], first["AWS_SESSION_TOKEN"]]
        tracing.assert_hidden(traced, [SECRET], command=command, command_secrets=session)

    def test_writing_shows_no_secret_either(self, secret_service):
        cli = secret_service
        if not tracing.available():
            pytest.skip("no strace")
        env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        argv = [*cli.program, "add", "prod", "--env"]
        traced = tracing.trace(argv, env=cli.environment(env), cwd=cli.home)
        assert traced.code == 0, traced.err
        tracing.assert_hidden(traced, [SECRET])

    def test_the_index_holds_names_only(self, secret_service):
        cli = secret_service
        cli.config(CONFIG)
        cli.endpoint_in_config()
        cli.add()
        environ = cli.exec_environ("prod")
        (index,) = index_of(cli)
        assert index["version"] == 1
        assert sorted(name.partition(",")[0] for name in index["names"]) == [
            "prod",
            "sts.GetSessionToken",
        ]
        text = json.dumps(index)
        assert environ["AWS_SESSION_TOKEN"] not in text
        assert environ["AWS_ACCESS_KEY_ID"] not in text
        assert KEY_ID not in text

    def test_a_key_that_another_program_took_away_is_gone(self, secret_service, desktop):
        cli = secret_service
        cli.config(CONFIG)
        cli.add()
        cli.run("list", check=0)
        go = GoSecretService(desktop)
        method = "org.freedesktop.Secret.Collection.SearchItems"
        for path in go.call(go.path, method, "a{ss}", {"profile": "prod"}):
            go.call(path, "org.freedesktop.Secret.Item.Delete")
        result = cli.run("exec", "prod", "--", "true", check=1)
        assert "no credentials are stored for profile 'prod'" in result.err
        assert "hint: awsvault add prod" in result.err

    def test_a_key_that_another_program_added_is_found(self, secret_service, desktop):
        cli = secret_service
        cli.add("dev")
        cli.run("list", check=0)
        data = json.dumps({"AccessKeyID": KEY_ID, "SecretAccessKey": SECRET})
        GoSecretService(desktop).set("prod", wrapper("prod", data))
        assert cli.exec_environ("prod", "-n")["AWS_ACCESS_KEY_ID"] == KEY_ID

    def test_a_session_that_another_program_took_away_is_made_again(
        self, secret_service, desktop, fake_aws
    ):
        cli = secret_service
        cli.config(CONFIG)
        cli.add()
        cli.exec_environ("prod")
        other = {"HOME": str(desktop.folder / "other")}
        (desktop.folder / "other").mkdir(mode=0o700)
        cli.run("clear", env=other, check=0)
        cli.exec_environ("prod")
        assert fake_aws.count() == 2


def wrapper(key, data):
    """An item's JSON as aws-vault writes it."""
    import base64

    encoded = base64.b64encode(data.encode()).decode()
    members = {
        "Key": key,
        "Data": encoded,
        "Label": f"aws-vault ({key})",
        "Description": "",
        "KeychainNotTrustApplication": True,
        "KeychainNotSynchronizable": False,
    }
    return json.dumps(members, separators=(",", ":"))


class TestChoosing:
    def test_the_first_usable_is_said_and_remembered(self, native, desktop):
        desktop.start_bus()
        desktop.gnome_keyring()
        cli = native()
        first = cli.add()
        assert "awsvault: using the keystore secret-service" in first.err
        assert first.err.count("\n") == 1
        state = desktop.home / ".awsvault" / "state.json"
        assert json.loads(state.read_text()) == {
            "version": 1,
            "backend": "secret-service",
            "automatic": True,
        }
        assert state.stat().st_mode & 0o777 == 0o600
        assert cli.run("list", check=0).err == ""
        assert not (desktop.home / ".awsvault" / "keys").exists()

    def test_a_dead_bus_tomorrow_is_an_error_and_no_second_vault(self, native, desktop):
        bus = desktop.start_bus()
        desktop.gnome_keyring()
        cli = native()
        cli.add()
        bus.kill()
        bus.wait()
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        result = cli.run("add", "dev", "--env", env=keys, check=1)
        assert "secret-service was chosen by awsvault at its first run: awsvault back" in result.err
        assert "the D-Bus session bus can't be used: nobody answers at" in result.err
        assert "hint:" in result.err
        assert not (desktop.home / ".awsvault" / "keys").exists()

    def test_nothing_else_here_means_file(self, native):
        cli = native(DBUS_SESSION_BUS_ADDRESS=None)
        assert "using the keystore file" in cli.add().err
        assert (cli.home / ".awsvault" / "keys" / "prod").exists()

    def test_a_vault_with_items_means_file(self, native, desktop):
        desktop.start_bus()
        desktop.gnome_keyring()
        cli = native("file")
        cli.add()
        cli.environ["AWS_VAULT_BACKEND"] = None
        result = cli.run("list", check=0)
        assert result.err == ""
        assert "prod" in result.out

    def test_a_vault_that_can_t_be_used_is_no_reason_for_another(self, native, desktop):
        desktop.start_bus()
        desktop.gnome_keyring()
        cli = native("file")
        cli.add()
        cli.environ["AWS_VAULT_BACKEND"] = None
        cli.keys.chmod(0o770)
        assert "can be written to by others" in cli.run("list", check=1).err
        cli.keys.chmod(0o700)
        (cli.keys / "prod").write_text("cut short")
        assert "stored item 'prod' is damaged" in cli.run("exec", "prod", "-n", check=1).err
        assert not (desktop.home / ".awsvault" / "state.json").exists()

    def test_what_desktops_leave_in_a_folder_is_no_vault(self, native, desktop):
        desktop.start_bus()
        desktop.gnome_keyring()
        cli = native()
        cli.keys.mkdir(mode=0o700, parents=True)
        (cli.keys / ".DS_Store").write_text("x")
        assert "using the keystore secret-service" in cli.run("list", check=0).err

    def test_the_flag_means_exactly_that_one(self, native):
        cli = native(DBUS_SESSION_BUS_ADDRESS=None)
        for arguments, env in (
            (["--backend=secret-service"], {}),
            ([], {"AWS_VAULT_BACKEND": "secret-service"}),
        ):
            result = cli.run(*arguments, "list", env=env, check=1)
            assert "there is no D-Bus session bus here" in result.err
        assert not (cli.home / ".awsvault" / "state.json").exists()

    def test_use_changes_it(self, native, desktop):
        cli = native(DBUS_SESSION_BUS_ADDRESS=None)
        refused = cli.run("backends", "--use", "pass", check=1)
        assert "error: pass can't be used: there is no password store in" in refused.err
        assert "--force chooses it all the same" in refused.err
        assert not (cli.home / ".awsvault").exists()
        cli.run("backends", "--use", "pass", "--force", check=0)
        error = cli.run("list", check=1).err
        assert "there is no password store in" in error
        by = "pass was chosen by backends --use: awsvault backends --use NAME changes it"
        assert error.endswith(f"; {by}\n")
        result = cli.run("backends", "--use", "file", check=0)
        assert result.out == "file is used from now on\n"
        cli.add()
        assert (cli.home / ".awsvault" / "keys" / "prod").exists()

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"version":2,"backend":"file"}', '{"version":1,"backend":"x"}']
    )
    def test_a_state_file_that_is_not_understood_is_an_error(self, native, text):
        cli = native(DBUS_SESSION_BUS_ADDRESS=None)
        folder = cli.home / ".awsvault"
        folder.mkdir(mode=0o700)
        (folder / "state.json").write_text(text)
        result = cli.run("list", check=1)
        assert "state.json" in result.err
        assert "hint: awsvault backends --use NAME" in result.err
        cli.run("backends", check=0)
        cli.run("backends", "--use", "file", check=0)
        cli.run("list", check=0)

    def test_passwords_of_its_user_are_no_reason_to_choose_pass(self, native, desktop):
        (desktop.folder / "fakes").mkdir()
        fake = Fakes(desktop.folder / "fakes")
        fake.install("pass")
        cli = native()
        cli.environ.update(fake.environ, HOME=str(desktop.home), DBUS_SESSION_BUS_ADDRESS=None)
        store = desktop.home / ".password-store"
        store.mkdir()
        (store / ".gpg-id").write_text("x")
        (store / "wifi.gpg").write_bytes(base64.b64encode(b"hunter2"))
        assert "using the keystore file" in cli.run("list", check=0).err
        shutil.rmtree(desktop.home / ".awsvault")
        cli.environ["AWS_VAULT_PASS_PREFIX"] = "aws"
        assert "using the keystore pass" in cli.run("list", check=0).err
        del cli.environ["AWS_VAULT_PASS_PREFIX"]
        assert cli.run("list", "--credentials", check=0).out == ""
        for command in (["add", "wifi", "--env"], ["exec", "wifi", "-n"], ["remove", "-f", "wifi"]):
            keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
            result = cli.run(*command, env=keys if "add" in command else {}, check=1)
            assert "'wifi' is damaged, or another program's entry" in result.err
        assert (store / "wifi.gpg").read_bytes() == base64.b64encode(b"hunter2")

    def test_the_table(self, native, desktop):
        desktop.start_bus()
        desktop.gnome_keyring()
        cli = native()
        cli.add()
        table = cli.run("backends", check=0).out
        rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
        assert list(rows) == [
            "Keystore", "keychain", "secret-service", "kwallet", "pass", "passage", "file",
        ]  # fmt: skip
        assert rows["Keystore"] == ["Usable", "Credentials", "Sessions", "Used"]
        assert rows["secret-service"] == ["yes", "1", "0", "yes"]
        assert rows["keychain"] == rows["kwallet"] == ["no", "-", "-", "-"]
        assert rows["file"] == ["yes", "0", "0", "-"]
        assert max(map(len, table.splitlines())) <= 80 and " \n" not in table
        verbose = cli.run("backends", "-v", check=0).out
        assert verbose.startswith(f"{table}\n")
        assert "secret-service: used: remembered in ~/.awsvault/state.json\n" in verbose
        assert "keychain: security is not installed: the keychain is macOS's\n" in verbose
        assert "\nfile:" not in verbose, "it has no reason to give"
        named = cli.run("backends", "-v", "--backend", "file", check=0).out.splitlines()[-1]
        assert "named by --backend" in named

    def test_the_table_is_no_choice(self, native):
        cli = native(DBUS_SESSION_BUS_ADDRESS=None)
        assert "the first that can be used here" in cli.run("backends", "-v", check=0).out
        assert not (cli.home / ".awsvault").exists()

"""How an MFA code is asked for where there is no terminal, and which way is taken."""

from __future__ import annotations

import shutil
import tempfile

import pytest

import awsvault
from awsvault import AwsVaultError, NeedsUser
from tests.fake_aws import MFA_SERIAL
from tests.fakes import Fakes
from tests.keystore_contract import RecordingWorld

RECORD = 'for word in "$@"; do printf "%s\\n" "$word"; done >>"$FAKE_LOG"; echo 123456'


@pytest.fixture
def fakes():
    folder = tempfile.mkdtemp(prefix="ks-")
    yield Fakes(folder)
    shutil.rmtree(folder)


@pytest.fixture
def world(fakes):
    made = RecordingWorld({**fakes.environ, "DISPLAY": ":99"})
    made.may_ask = True
    made.terminal = False
    made.can_ask = lambda: made.may_ask and made.terminal
    return made


def ask(world, name, serial=MFA_SERIAL):
    return awsvault.PROMPTERS[name](world, serial).reveal()


class TestPrograms:
    @pytest.mark.parametrize(
        ("name", "argv"),
        [
            ("zenity", ["--entry", "--no-markup", "--title", "aws-vault", "--text", f"MFA code for {MFA_SERIAL}"]),
            ("kdialog", ["--inputbox", f"MFA code for {MFA_SERIAL}", "--title", "aws-vault"]),
            ("ykman", ["oath", "accounts", "code", "--single", MFA_SERIAL]),
        ],
    )  # fmt: skip
    def test_the_command(self, world, fakes, name, argv):
        fakes.script(name, RECORD)
        assert ask(world, name) == "123456\n"
        assert fakes.log.read_text().splitlines() == argv

    def test_osascript_gets_the_question_as_an_argument(self, world, fakes):
        fakes.script("osascript", RECORD)
        serial = '" & (do shell script "touch /tmp/x") & "'
        ask(world, "osascript", serial)
        *script, question = fakes.log.read_text().splitlines()
        assert question == f"MFA code for {serial}"
        assert not any("shell" in line for line in script)
        assert script[:2] == ["-e", "on run argv"]
        assert script[-1] == "end run"

    def test_a_serial_is_shown_as_it_is(self, world, fakes):
        fakes.script("zenity", RECORD)
        ask(world, "zenity", "<b>\\n\x1b[31m")
        assert fakes.log.read_text().splitlines()[-1] == "MFA code for <b>\\\\n\\\\x1b[31m"

    @pytest.mark.parametrize("version", ["1", "2", "3"])
    def test_an_older_ykman_and_its_variables(self, world, fakes, version):
        fakes.script("ykman", RECORD)
        world.environ.update(
            AWS_VAULT_YKMAN_VERSION=version,
            YKMAN_OATH_DEVICE_SERIAL="1234567",
            YKMAN_OATH_CREDENTIAL_NAME="aws-jon",
        )
        ask(world, "ykman")
        assert fakes.log.read_text().split() == [
            "--device", "1234567", "oath", "code", "--single", "aws-jon",
        ]  # fmt: skip

    def test_missing_dismissed_and_forbidden(self, world, fakes):
        with pytest.raises(AwsVaultError, match="zenity is not installed"):
            ask(world, "zenity")
        fakes.script("zenity", "exit 1")
        with pytest.raises(AwsVaultError, match="it was dismissed"):
            ask(world, "zenity")
        world.may_ask = False
        with pytest.raises(NeedsUser, match="--no-input forbids asking"):
            ask(world, "zenity")

    def test_it_sees_no_passphrase(self, world, fakes):
        fakes.script("zenity", 'echo "${AWS_VAULT_FILE_PASSPHRASE-unset}" >>"$FAKE_LOG"')
        world.environ["AWS_VAULT_FILE_PASSPHRASE"] = "secret"
        ask(world, "zenity")
        assert fakes.log.read_text() == "unset\n"


class TestChoice:
    ROWS = [
        ("a terminal comes first", {"zenity"}, True, ":0", "", "terminal"),
        ("without one, a window", {"zenity"}, False, ":0", "", "zenity"),
        ("in order of the alphabet", {"zenity", "kdialog"}, False, ":0", "", "kdialog"),
        ("no display, no window", {"zenity", "kdialog"}, False, "", "", "terminal"),
        ("never ykman unasked", {"ykman"}, False, ":0", "", "terminal"),
        ("as named", {"zenity"}, True, ":0", "ykman", "ykman"),
        ("as named, even without a terminal", {"zenity"}, False, ":0", "terminal", "terminal"),
    ]  # fmt: skip

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
    def test_choice(self, world, fakes, row):
        _what, programs, world.terminal, world.environ["DISPLAY"], named, expected = row
        for program in programs:
            fakes.script(program, RECORD)
        assert awsvault.choose_prompter(world, named) == expected

    def test_nobody_is_asked_where_nobody_may_be(self, world, fakes):
        fakes.script("zenity", RECORD)
        world.may_ask = False
        assert awsvault.choose_prompter(world) == "terminal"


class TestCommandLine:
    def test_pass_has_its_own_message(self, cli):
        for arguments, env in ((["--prompt=pass"], {}), ([], {"AWS_VAULT_PROMPT": "pass"})):
            result = cli.run(*arguments, "list", env=env, check=2)
            assert "the prompter pass does not exist any more" in result.err
            assert "hint: write mfa_process = pass otp" in result.err

    def test_no_such_prompter(self, cli):
        result = cli.run("--prompt=carrier-pigeon", "list", check=2)
        assert (
            "'carrier-pigeon' is none of terminal, kdialog, osascript, zenity, ykman" in result.err
        )

    def test_a_window_gives_the_code(self, cli, fakes, fake_aws):
        cli.mfa_config()
        cli.add()
        fakes.script("zenity", "echo 123456")
        env = {"PATH": f"{fakes.bin}:/usr/bin:/bin", "DISPLAY": ":99"}
        cli.run("exec", "prod", "--", "true", env=env, check=0)
        cli.run("clear", env=env, check=0)
        result = cli.run("--no-input", "exec", "prod", "--", "true", env=env, check=3)
        assert "hint: give the code with --mfa-token or set mfa_process" in result.err

"""kill -9 at any moment: every stored item stays readable, and the config stays whole."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from tests.conftest import PROGRAM, arn
from tests.fake_aws import KEY_ID, SECRET

NEW_KEY_ID, NEW_SECRET = "AKIADUMMYEXAMPLE0009", "dummy/secret+key/EXAMPLE0009/not/real000"
CONFIG = f"""[profile prod]
region = eu-west-1

[profile admin]
source_profile = prod
role_arn = {arn("admin")}
"""
OLD, NEW = (KEY_ID, SECRET), (NEW_KEY_ID, NEW_SECRET)
WRITING = {"lock", "create_file", "write_file", "sync_file", "rename", "sync_folder"}


def die_everywhere(cli, tmp_path, *argv, env=None):
    """The states that deaths at each door left; the last is that of a run that lived."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.dying", str(cli.home), str(tmp_path / "scratch"), *argv],
        env=cli.environment(env),
        cwd=PROGRAM.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    states = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert states[-1]["door"] is None
    for one in states:
        assert one["left"] == [], one
        assert not [text for text in one["items"].values() if text.startswith("unreadable")], one
    return states


def keys_in(state, name):
    """Key id and secret of a stored item; None if there is none."""
    if name not in state["items"]:
        return None
    data = json.loads(state["items"][name])
    return data["AccessKeyID"], data["SecretAccessKey"]


def sessions_in(state):
    return [name for name in state["items"] if name.count(",") == 3]


def doors(states):
    return {one["door"] for one in states}


@pytest.fixture
def vault(cli):
    cli.config(CONFIG)
    cli.add("prod")
    return cli


NEW_KEYS = {"AWS_ACCESS_KEY_ID": NEW_KEY_ID, "AWS_SECRET_ACCESS_KEY": NEW_SECRET}


def test_add_of_a_new_profile(vault, tmp_path):
    states = die_everywhere(vault, tmp_path, "add", "new", "--env", env=NEW_KEYS)
    for one in states:
        assert keys_in(one, "prod") == OLD
        assert keys_in(one, "new") in (None, NEW)
        assert one["config"].startswith(CONFIG)
        assert "[profile new]\n".startswith(one["config"][len(CONFIG) :].lstrip("\n"))
    assert keys_in(states[-1], "new") == NEW
    assert states[-1]["config"] == CONFIG + "\n[profile new]\n"
    assert doors(states) >= WRITING | {"append_file", "read_own", "list_folder"}


def test_add_to_an_empty_home(cli, tmp_path):
    states = die_everywhere(cli, tmp_path, "add", "new", "--env", env=NEW_KEYS)
    assert {keys_in(one, "new") for one in states} == {None, NEW}
    assert doors(states) >= WRITING | {"private_folder"}


def test_add_over_a_key(vault, tmp_path):
    vault.exec_environ("prod")
    vault.exec_environ("admin")
    states = die_everywhere(vault, tmp_path, "add", "prod", "--env", env=NEW_KEYS)
    found = [keys_in(one, "prod") for one in states]
    assert set(found) == {OLD, NEW}
    assert sorted(found, key=lambda keys: keys == NEW) == found
    assert sessions_in(states[-1]) == []
    assert "delete_file" in doors(states)


def test_exec_that_stores_sessions(vault, fake_aws, tmp_path):
    states = die_everywhere(vault, tmp_path, "exec", "admin", "--", "true")
    for one in states:
        assert keys_in(one, "prod") == OLD
        for name in sessions_in(one):
            data = json.loads(one["items"][name])
            assert fake_aws.sessions[data["AccessKeyId"]].token == data["SessionToken"]
    assert len(sessions_in(states[-1])) == 1
    assert doors(states) >= WRITING | {"read_own", "load_library"}


def test_reading_a_weak_item_makes_it_stronger_or_leaves_it(vault, tmp_path):
    strong = {"AWS_VAULT_FILE_ITERATIONS": "8200"}
    line = ["exec", "prod", "--no-session", "--", "true"]
    states = die_everywhere(vault, tmp_path, *line, env=strong)
    assert {keys_in(one, "prod") for one in states} == {OLD}
    assert doors(states) >= WRITING


@pytest.mark.parametrize("line", [["remove", "-f", "prod"], ["clear"]], ids=" ".join)
def test_removing(vault, tmp_path, line):
    vault.exec_environ("prod")
    vault.exec_environ("admin")
    states = die_everywhere(vault, tmp_path, *line)
    assert "delete_file" in doors(states)
    assert {keys_in(one, "prod") for one in states} <= {OLD, None}
    assert sessions_in(states[-1]) == []
    for one in states:
        # Keys go first: no session is left behind keys that are gone, but by a death in between.
        assert one["config"] == CONFIG


def test_what_a_death_leaves_disturbs_nobody(vault, fake_aws, tmp_path):
    """After each death in the middle of a write the same line works, with no lock left behind."""
    dice = random.Random(4)
    for number in range(12):
        keys = (
            NEW_KEYS
            if number % 2
            else {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        )
        process = vault.popen("add", "prod", "--env", env=keys)
        try:
            process.wait(dice.uniform(0.0, 0.25))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        shown = vault.run("export", "--no-session", "prod", "--format=json", check=0).json()
        assert (shown["AccessKeyId"], shown["SecretAccessKey"]) in (OLD, NEW)
    assert [path.name for path in vault.keys.iterdir()] == ["prod"]
    vault.add("prod")
    vault.run("exec", "prod", "--", "true", check=0)


def test_leftovers_of_dead_writers_are_swept(vault):
    """An hour later: no write takes that long."""
    scratch = vault.home / ".awsvault" / "tmp"
    old, young = (scratch / f".awsvault-tmp-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_text("half an it")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    vault.add("other")
    assert (old.exists(), young.exists()) == (False, True)
    assert vault.run("list", "--credentials", check=0).out == "other\nprod\n"

"""exec --min-ttl: the command starts with at least so much time, or not at all."""

from __future__ import annotations

import pytest

from tests.conftest import arn


@pytest.fixture
def prod(cli):
    cli.config(
        f"[profile prod]\nregion = eu-west-1\n[profile admin]\nrole_arn = {arn('admin')}\nsource_profile = prod\n"
    )
    cli.add("prod")
    return cli


def run(cli, profile, *flags):
    return cli.run("exec", profile, *flags, "--", "echo", "started")


@pytest.mark.parametrize("profile", ["prod", "admin"])
def test_a_cached_session_with_enough_serves(profile, prod, fake_aws):
    run(prod, profile)
    made = fake_aws.count()
    assert run(prod, profile, "--min-ttl", "59m").out == "started\n"
    assert fake_aws.count() == made


def test_one_that_lasts_longer_than_a_new_one_would(prod, fake_aws):
    prod.mfa_config()
    run(prod, "admin", "-t", "123456")
    made = fake_aws.count()
    assert run(prod, "prod", "--min-ttl", "2h").out == "started\n"
    assert fake_aws.count() == made


@pytest.mark.parametrize(
    ("profile", "action"), [("prod", "GetSessionToken"), ("admin", "AssumeRole")]
)
def test_one_with_less_is_made_anew_once(profile, action, prod, fake_aws):
    fake_aws.lifetime = 1800
    run(prod, profile)
    fake_aws.lifetime = None
    assert run(prod, profile, "--min-ttl", "45m").out == "started\n"
    assert fake_aws.count(action) == 2
    assert run(prod, profile, "--min-ttl", "45m").out == "started\n"
    assert fake_aws.count(action) == 2


def test_the_session_that_a_role_is_made_from_may_have_less(prod, fake_aws):
    prod.mfa_config()
    fake_aws.lifetime = 1800
    assert run(prod, "admin", "-t", "123456").code == 0
    fake_aws.lifetime = None
    # Only the role is made anew, so no code is asked for.
    assert run(prod, "admin", "--min-ttl", "45m").out == "started\n"
    assert (fake_aws.count("GetSessionToken"), fake_aws.count("AssumeRole")) == (1, 2)


@pytest.mark.parametrize("mode", [[], ["--server"], ["--ecs-server", "--lazy"]])
def test_what_can_t_last_so_long_is_refused_before_anything(mode, prod, fake_aws):
    result = run(prod, "admin", "--min-ttl", "2h", *mode)
    assert (result.code, result.out) == (1, "")
    assert "lasts 1h0m0s, --min-ttl asks for 2h0m0s" in result.err
    assert "hint:" in result.err
    assert fake_aws.count() == 0


@pytest.mark.parametrize(("mode", "helps"), [([], True), (["--server"], False)])
def test_longer_is_advised_where_it_can_be_had(mode, helps, prod):
    result = run(prod, "admin", "--min-ttl", "2h", *mode)
    assert ("--duration" in result.err) is helps


@pytest.mark.parametrize("mode", [[], ["--server"], ["--ec2-server"], ["--process"]])
def test_a_new_one_with_less_stops_the_command(mode, prod, fake_aws):
    fake_aws.lifetime = 600
    words = [*mode, "prod"] if mode == ["--process"] else ["prod", *mode]
    result = prod.run("exec", *words, "--min-ttl", "30m", "--", "echo", "started")
    assert (result.code, result.out) == (1, "")
    assert "--min-ttl asks for 30m0s" in result.err
    assert fake_aws.count() > 0
    run_folder = prod.home / ".awsvault" / "run"
    assert not run_folder.exists() or not list(run_folder.iterdir())


def test_a_duration_of_exactly_as_much_will_do(prod):
    assert run(prod, "prod", "-d", "2h", "--min-ttl", "2h").out == "started\n"


def test_keys_without_a_session_do_not_end(prod, fake_aws):
    assert run(prod, "prod", "-n", "--min-ttl", "30h").out == "started\n"
    assert fake_aws.count() == 0


@pytest.mark.parametrize("text", ["soon", "90", "-1h"])
def test_what_is_no_duration_is_refused(text, prod):
    result = run(prod, "prod", f"--min-ttl={text}")
    assert result.code == 2
    assert "--min-ttl" in result.err

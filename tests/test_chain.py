"""Which requests a profile takes, in what order: the table of aws-vault, and where this program is better."""

from __future__ import annotations

import datetime

import pytest

from awsvault import (
    AwsVaultError,
    ConfigFile,
    SessionProvider,
    UsageError,
    load_profile,
    plan_chain,
)

JON, ANN = "arn:aws:iam::111111111111:mfa/jon", "arn:aws:iam::111111111111:mfa/ann"

# name: its line in the config; `role` and `mfa` are short for a role_arn and jon's device.
SHORT = {"role": "role_arn = arn:aws:iam::111111111111:role/x", "mfa": f"mfa_serial = {JON}", "ann": f"mfa_serial = {ANN}"}  # fmt: skip


def config(**profiles):
    """A config file of profiles, each given as words of SHORT, `source=NAME` or other `key=value`."""
    text = ""
    for name, words in profiles.items():
        text += "[default]\n" if name == "default" else f"[profile {name}]\n"
        for word in words.split():
            key, mark, value = word.partition("=")
            text += (
                SHORT.get(word, f"{'source_profile' if key == 'source' else key} = {value}") + "\n"
            )
            assert mark or word in SHORT
    return ConfigFile("config", text)


def plan(profiles, name, stored, flags=None, environ=None, **options):
    flags = (
        {"duration_seconds": flags, "session_ttl": flags, "chained_session_ttl": flags}
        if flags
        else {}
    )
    target = load_profile(config(**profiles), name, flags, environ or {}, stored)
    return plan_chain(target, stored, **options)


def links(provider):
    """The sessions of a chain, first link first."""
    found = []
    while isinstance(provider, SessionProvider):
        found.insert(0, provider)
        provider = provider.source
    return found


PLAIN = {"S": ""}
WITH_MFA = {"S": "mfa"}
ROLE = {"S": "", "T": "role source=S"}
ROLE_MFA = {"S": "mfa", "T": "role mfa source=S"}
ROLE_ONLY_MFA = {"S": "", "T": "role mfa source=S"}
TWO_ROLES = {"S": "mfa", "R1": "role mfa source=S", "T": "role mfa source=R1"}
OWN_KEYS = {"R1": "role mfa", "T": "role mfa source=R1"}

# What, the profiles, the one asked for, flags, and the chain that aws-vault's fork makes too.
BASELINE = [
    ("a profile with keys", PLAIN, "S", {}, "stored S > session S 1h0m0s"),
    ("a profile with keys and MFA", WITH_MFA, "S", {}, "stored S > session S 1h0m0s (mfa jon)"),
    ("no session: the keys themselves", WITH_MFA, "S", {"no_session": True}, "stored S"),
    ("a duration", PLAIN, "S", {"flags": "2h"}, "stored S > session S 2h0m0s"),
    ("a role without MFA comes from the keys", ROLE, "T", {}, "stored S > role T 1h0m0s"),
    ("a role of 2 h without MFA", ROLE, "T", {"flags": "2h"}, "stored S > role T 2h0m0s"),
    ("a role with its source's device shares the source's session", ROLE_MFA, "T", {}, "stored S > session S 8h0m0s (mfa jon) > role T 1h0m0s"),
    ("a role with a device that its source has not", ROLE_ONLY_MFA, "T", {}, "stored S > role T 1h0m0s (mfa jon)"),
    ("a role over 1 h comes from the keys", ROLE_MFA, "T", {"flags": "2h"}, "stored S > role T 2h0m0s (mfa jon)"),
    ("a short role shortens the shared session", ROLE_MFA, "T", {"flags": "30m"}, "stored S > session S 30m0s (mfa jon) > role T 30m0s"),
    ("a role with its own keys", {"T": "role mfa"}, "T", {"stored": ["T"]}, "stored T > role T 1h0m0s (mfa jon)"),
    ("a profile without a role over another", {"S": "", "T": "source=S"}, "T", {}, "stored S > session T 1h0m0s"),
    ("the same with MFA on both", {"S": "mfa", "T": "mfa source=S"}, "T", {}, "stored S > session S 8h0m0s (mfa jon)"),
    ("a role over one with its own keys", OWN_KEYS, "T", {"stored": ["R1"]}, "stored R1 > session R1 8h0m0s (mfa jon) > role R1 1h0m0s > role T 1h0m0s"),
    ("two roles for 12 h", TWO_ROLES, "T", {"flags": "12h"}, "stored S > session S 12h0m0s (mfa jon) > role R1 1h0m0s > role T 1h0m0s"),
    ("keys win over credential_process", {"P": "credential_process=x"}, "P", {"stored": ["P"]}, "stored P > session P 1h0m0s"),
    ("three roles ask once", {**TWO_ROLES, "U": "role mfa source=T"}, "U", {}, "stored S > session S 8h0m0s (mfa jon) > role R1 1h0m0s > role T 1h0m0s > role U 1h0m0s"),
    ("two roles with MFA over keys without", {"S": "", "R1": "role mfa source=S", "R2": "role mfa source=R1"}, "R2", {}, "stored S > session R1 8h0m0s (mfa jon) > role R1 1h0m0s > role R2 1h0m0s"),
    ("MFA at the keys only is not asked for", {"S": "mfa", "R1": "role source=S", "R2": "role source=R1"}, "R2", {}, "stored S > role R1 1h0m0s > role R2 1h0m0s"),
    ("MFA at the keys and the first role", {"S": "mfa", "R1": "role mfa source=S", "R2": "role source=R1"}, "R2", {}, "stored S > session S 8h0m0s (mfa jon) > role R1 1h0m0s > role R2 1h0m0s"),
    ("MFA at the first role only", {"S": "", "R1": "role mfa source=S", "R2": "role source=R1"}, "R2", {}, "stored S > role R1 1h0m0s (mfa jon) > role R2 1h0m0s"),
    ("two roles for 2 h without MFA", {"S": "", "R1": "role source=S", "R2": "role source=R1"}, "R2", {"flags": "2h"}, "stored S > role R1 2h0m0s > role R2 1h0m0s"),
    ("another device than the source's", {"S": "mfa", "T": "role ann source=S"}, "T", {}, "stored S > role T 1h0m0s (mfa ann)"),
    ("a profile over a role is that role", {**ROLE_MFA, "A": "source=T"}, "A", {}, "stored S > session S 8h0m0s (mfa jon) > role T 1h0m0s"),
    ("and keeps its full duration", {**ROLE_MFA, "A": "source=T"}, "A", {"flags": "2h"}, "stored S > role T 2h0m0s (mfa jon)"),
    ("a role over a profile with MFA over keys", {"S": "mfa", "A": "mfa source=S", "T": "role mfa source=A"}, "T", {}, "stored S > session S 8h0m0s (mfa jon) > role T 1h0m0s"),
    ("a role over a profile without MFA over keys", {"S": "mfa", "A": "source=S", "T": "role mfa source=A"}, "T", {}, "stored S > role T 1h0m0s (mfa jon)"),
    ("own keys win over the source", {"S": "", "T": "source=S"}, "T", {"stored": ["S", "T"]}, "stored T > session T 1h0m0s"),
    ("its own source is no source", {"T": "source=T"}, "T", {"stored": ["T"]}, "stored T > session T 1h0m0s"),
    ("no session: a role with MFA comes from the keys", ROLE_MFA, "T", {"no_session": True}, "stored S > role T 1h0m0s (mfa jon)"),
    ("AWS_ROLE_ARN makes a role of the profile asked for", PLAIN, "S", {"environ": {"AWS_ROLE_ARN": "arn:aws:iam::111111111111:role/e"}}, "stored S > role S 1h0m0s"),
    ("AWS_ROLE_ARN leaves the sources alone", ROLE, "T", {"environ": {"AWS_ROLE_ARN": "arn:aws:iam::111111111111:role/e"}}, "stored S > role T 1h0m0s"),
    ("AWS_MFA_SERIAL is everybody's", ROLE, "T", {"environ": {"AWS_MFA_SERIAL": ANN}}, "stored S > session S 8h0m0s (mfa ann) > role T 1h0m0s"),
    ("AWS_ASSUME_ROLE_TTL", ROLE, "T", {"environ": {"AWS_ASSUME_ROLE_TTL": "2h"}}, "stored S > role T 2h0m0s"),
    ("AWS_SESSION_TOKEN_TTL", PLAIN, "S", {"environ": {"AWS_SESSION_TOKEN_TTL": "2h"}}, "stored S > session S 2h0m0s"),
    ("AWS_CHAINED_SESSION_TOKEN_TTL", ROLE_MFA, "T", {"environ": {"AWS_CHAINED_SESSION_TOKEN_TTL": "2h"}}, "stored S > session S 2h0m0s (mfa jon) > role T 1h0m0s"),
    ("duration_seconds", {"S": "", "T": "role source=S duration_seconds=7200"}, "T", {}, "stored S > role T 2h0m0s"),
    ("a flag beats duration_seconds", {"S": "", "T": "role source=S duration_seconds=7200"}, "T", {"flags": "3h"}, "stored S > role T 3h0m0s"),
    ("a flag of 0 is none", {"S": "", "T": "role source=S duration_seconds=7200"}, "T", {"flags": "0"}, "stored S > role T 2h0m0s"),
]  # fmt: skip

# Where this program does what works instead of what AWS refuses.
BETTER = [
    ("MFA at the second role only is moved to the keys", {"S": "", "R1": "role source=S", "R2": "role mfa source=R1"}, "R2", {}, "stored S > session S 8h0m0s (mfa jon) > role R1 1h0m0s > role R2 1h0m0s"),
    ("MFA at the third role only is moved to the keys", {"S": "", "R1": "role source=S", "R2": "role source=R1", "R3": "role mfa source=R2"}, "R3", {}, "stored S > session S 8h0m0s (mfa jon) > role R1 1h0m0s > role R2 1h0m0s > role R3 1h0m0s"),
    ("[default]'s role is not its source's role", {"S": "", "default": "role source=S"}, "default", {}, "stored S > role default 1h0m0s"),
    ("[default]'s role is nobody else's", {"S": "", "default": "role source=S", "T": "role source=S"}, "T", {}, "stored S > role T 1h0m0s"),
    ("[default]'s device is everybody's", {"default": "mfa", "S": "", "T": "role source=S"}, "T", {}, "stored S > session S 8h0m0s (mfa jon) > role T 1h0m0s"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "profiles", "name", "options", "chain"),
    BASELINE + BETTER,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_chain(what, profiles, name, options, chain):
    options = {"stored": ["S"], **options}
    assert plan(profiles, name, **options).provider.describe() == chain


@pytest.mark.parametrize(
    ("profiles", "name", "capped"),
    [
        (TWO_ROLES, "T", ["R1", "T"]),
        ({"S": "", "R1": "role source=S", "R2": "role source=R1"}, "R2", ["R2"]),
        (ROLE, "T", []),
        (ROLE_MFA, "T", []),
    ],
    ids=[
        "both over a session",
        "the second over the first",
        "one over keys",
        "one that has no session for it",
    ],
)
def test_a_role_that_aws_caps_at_an_hour_is_said_so(profiles, name, capped):
    notes = plan(profiles, name, ["S"], "2h").notes
    assert [note for note in notes if "one hour" in note] == list(notes)
    assert len(notes) == len(capped)
    assert all(f"'{role}'" in note for role, note in zip(capped, notes))


@pytest.mark.parametrize(
    ("what", "profiles", "name", "options", "words"),
    [
        ("two devices in one chain", {"S": "", "R1": "role mfa source=S", "R2": "role ann source=R1"}, "R2", {}, ["'R1'", "'R2'", "two MFA devices"]),
        ("a session's device and another", {"S": "mfa", "R1": "role mfa source=S", "R2": "role ann source=R1"}, "R2", {}, ["'S'", "'R2'", "two MFA devices"]),
        ("MFA after a role without a session", TWO_ROLES, "T", {"no_session": True}, ["'T'", "needs MFA after another role"]),
        ("a session under 15 minutes", PLAIN, "S", {"flags": "10m"}, ["--duration", "at least 15 minutes"]),
        ("a session over 36 hours", PLAIN, "S", {"flags": "37h"}, ["--duration", "at most 36 hours"]),
        ("a role over 12 hours", ROLE, "T", {"flags": "13h"}, ["--duration", "at most 12 hours"]),
        ("a second role under 15 minutes", TWO_ROLES, "T", {"flags": "14m59s"}, ["--duration", "at least 15 minutes"]),
        ("a variable out of bounds", PLAIN, "S", {"environ": {"AWS_SESSION_TOKEN_TTL": "1s"}}, ["AWS_SESSION_TOKEN_TTL", "at least 15 minutes"]),
        ("a key out of bounds", {"S": "", "T": "role source=S duration_seconds=60"}, "T", {}, ["config", "[profile T]", "duration_seconds", "at least 15 minutes"]),
        ("a profile by SSO", {"S": "sso_start_url=https://x"}, "S", {"stored": []}, ["sso_start_url", "aws sso login --profile S; then", "AWS_PROFILE=S"]),
        ("a source by process", {"S": "credential_process=x", "T": "role source=S"}, "T", {"stored": []}, ["'S'", "credential_process", "AWS_PROFILE=T"]),
        ("a role by the machine's own credentials", {"S": "role credential_source=Ec2InstanceMetadata"}, "S", {"stored": []}, ["'S'", "credential_source", "AWS_PROFILE=S"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anybody_is_asked(what, profiles, name, options, words):
    options = {"stored": ["S"], **options}
    with pytest.raises(UsageError) as caught:
        plan(profiles, name, **options)
    assert caught.value.exit_code == 2
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert [word for word in words if word not in said] == []
    assert "store keys" not in said


def test_no_keys_anywhere_is_no_usage_error():
    with pytest.raises(AwsVaultError) as caught:
        plan(ROLE, "T", [])
    assert caught.value.exit_code == 1
    assert "'S'" in caught.value.message
    assert "'T'" in caught.value.message
    assert caught.value.hint == "awsvault add S"


# -- bounds that are none -----------------------------------------------------


def test_the_bounds_themselves_are_allowed():
    assert plan(PLAIN, "S", ["S"], "15m").provider.duration == datetime.timedelta(minutes=15)
    assert plan(PLAIN, "S", ["S"], "36h").provider.duration == datetime.timedelta(hours=36)
    assert plan(ROLE, "T", ["S"], "12h").provider.duration == datetime.timedelta(hours=12)


def test_a_capped_role_may_ask_for_more_than_twelve_hours():
    # The flag is for the session below; AWS's hour is what the roles get.
    chain = links(plan(TWO_ROLES, "T", ["S"], "24h").provider)
    assert [link.duration.total_seconds() / 3600 for link in chain] == [24, 1, 1]


# -- whose device, whose command ----------------------------------------------


def process_of(profiles, name, stored, **options):
    return [
        link.mfa.process
        for link in links(plan(profiles, name, stored, **options).provider)
        if link.mfa
    ]


@pytest.mark.parametrize(
    ("what", "profiles", "name", "process"),
    [
        ("its own", {"S": "mfa mfa_process=one"}, "S", "one"),
        ("its own, not the source's", {"S": "mfa mfa_process=one", "T": "role mfa source=S duration_seconds=7200 mfa_process=two"}, "T", "two"),
        ("the source's, for the same device", {"S": "mfa mfa_process=one", "T": "role mfa source=S duration_seconds=7200"}, "T", "one"),
        ("a later profile's, for the same device", {"S": "mfa", "T": "role mfa source=S mfa_process=two"}, "T", "two"),
        ("not the source's for another device", {"S": "mfa mfa_process=one", "T": "role ann source=S"}, "T", ""),
        ("the source's, which names no device", {"S": "mfa_process=one", "T": "role mfa source=S duration_seconds=7200"}, "T", "one"),
        ("the nearest source's that names none", {"S": "mfa_process=one", "R1": "role source=S mfa_process=two", "T": "role mfa source=R1"}, "T", "two"),
        ("not one between for another device", {"S": "mfa_process=one", "R1": "role source=S", "T": "role ann source=R1"}, "T", "one"),
        ("never a target's that names none, for its source", {"S": "mfa", "R1": "role mfa source=S", "T": "role source=R1 mfa_process=two"}, "T", ""),
        ("the device's own before a source's", {"S": "mfa_process=one", "T": "role mfa source=S mfa_process=two"}, "T", "two"),
        ("a later role's, whose device was moved to the keys", {"S": "", "R1": "role source=S", "T": "role mfa source=R1 mfa_process=two"}, "T", "two"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_mfa_process_answers_for_its_own_device(what, profiles, name, process):
    assert process_of(profiles, name, ["S"]) == [process]


# -- where sessions are filed ---------------------------------------------------


def slots(profiles, name, **options):
    options = {"stored": ["S"], **options}
    return [
        (link.slot.type, link.slot.profile, link.slot.third)
        for link in links(plan(profiles, name, **options).provider)
    ]


GST, ASSUMED = "sts.GetSessionToken", "sts.AssumeRole"


@pytest.mark.parametrize(
    ("what", "profiles", "name", "options", "filed"),
    [
        ("a session of keys", PLAIN, "S", {}, [(GST, "S", "")]),
        ("a session with MFA", WITH_MFA, "S", {}, [(GST, "S", JON)]),
        ("a shared session", ROLE_MFA, "T", {}, [(GST, "S", JON), (f"awsvault.{ASSUMED}", "T", "")]),
        ("a role with MFA", ROLE_ONLY_MFA, "T", {}, [(ASSUMED, "T", JON)]),
        ("a role without MFA, which aws-vault does not keep", ROLE, "T", {}, [(f"awsvault.{ASSUMED}", "T", "")]),
        ("a session of the first role's device", {"S": "", "R1": "role mfa source=S", "R2": "role mfa source=R1"}, "R2", {}, [(GST, "R1", JON), (f"awsvault.{ASSUMED}", "R1", ""), (f"awsvault.{ASSUMED}", "R2", "")]),
        ("a session that aws-vault would not make", {"S": "", "R1": "role source=S", "R2": "role mfa source=R1"}, "R2", {}, [(f"awsvault.{GST}", "S", JON), (f"awsvault.{ASSUMED}", "R1", ""), (f"awsvault.{ASSUMED}", "R2", "")]),
        ("a session of the file's own duration", {"S": "", "T": "role mfa source=S duration_seconds=7200"}, "T", {}, [(ASSUMED, "T", JON)]),
        ("the same duration by flag", {"S": "", "T": "role mfa source=S duration_seconds=7200"}, "T", {"flags": "7200s"}, None),
        ("a flag of 0", WITH_MFA, "S", {"flags": "0"}, [(GST, "S", JON)]),
        ("a region by variable", WITH_MFA, "S", {"environ": {"AWS_REGION": "us-west-2"}}, [(GST, "S", JON)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_session_that_aws_vault_would_make_has_its_name(what, profiles, name, options, filed):
    found = slots(profiles, name, **options)
    if filed is None:
        assert found[0][0].startswith("awsvault.")
    else:
        assert found == filed


@pytest.mark.parametrize(
    ("profiles", "name", "options"),
    [
        (PLAIN, "S", {"flags": "2h"}),
        (PLAIN, "S", {"environ": {"AWS_SESSION_TOKEN_TTL": "2h"}}),
        (WITH_MFA, "S", {"environ": {"AWS_MFA_SERIAL": ANN}}),
        (PLAIN, "S", {"environ": {"AWS_ENDPOINT_URL": "https://sts.example.test"}}),
        (PLAIN, "S", {"environ": {"AWS_ENDPOINT_URL_STS": "https://sts.example.test"}}),
        (ROLE_ONLY_MFA, "T", {"flags": "2h"}),
        (ROLE_ONLY_MFA, "T", {"environ": {"AWS_ROLE_ARN": "arn:aws:iam::111111111111:role/e"}}),
        (ROLE_ONLY_MFA, "T", {"environ": {"AWS_ROLE_SESSION_NAME": "me"}}),
        (ROLE_ONLY_MFA, "T", {"environ": {"AWS_SESSION_TAGS": "a=b"}}),
        (ROLE_ONLY_MFA, "T", {"environ": {"AWS_TRANSITIVE_TAGS": "a"}}),
        (ROLE_ONLY_MFA, "T", {"environ": {"AWS_SOURCE_IDENTITY": "me"}}),
        (ROLE_ONLY_MFA, "T", {"environ": {"AWS_ASSUME_ROLE_TTL": "2h"}}),
    ],
    ids=str,
)
def test_what_flags_and_variables_made_different_is_filed_apart(profiles, name, options):
    plain, varied = slots(profiles, name)[-1], slots(profiles, name, **options)[-1]
    assert varied[0].startswith("awsvault.")
    assert varied[:2] == (f"awsvault.{plain[0]}", plain[1])
    assert varied[2] != plain[2]


def test_two_shells_with_different_flags_do_not_evict_each_other():
    assert slots(PLAIN, "S", flags="2h") != slots(PLAIN, "S", flags="3h")
    assert slots(PLAIN, "S", flags="2h") == slots(PLAIN, "S", flags="2h")


def test_a_duration_for_roles_makes_no_other_session_of_the_keys():
    environ = {"AWS_ASSUME_ROLE_TTL": "30m"}
    assert slots(ROLE_MFA, "T", environ=environ)[0] == slots(ROLE_MFA, "T")[0]


# -- what a session was made for ------------------------------------------------


class Keys:
    """Tools that know one key id for every profile."""

    def __init__(self, key_id="AKIADUMMYEXAMPLE0001"):
        self.access_key_id = key_id

    def stored(self, profile):
        return self


def made_from(profiles, name, keys=None, **options):
    options = {"stored": ["S"], **options}
    return plan(profiles, name, **options).provider.made_from(keys or Keys())


SAME = [
    ("another region of the partition", {"T": "role source=S region=us-west-2"}, {}),
    ("a region by variable", {}, {"environ": {"AWS_REGION": "us-west-2"}}),
    ("a retry mode", {"T": "role source=S retry_mode=standard"}, {}),
]
DIFFERENT = [
    ("another role", {"T": "source=S role_arn=arn:aws:iam::111111111111:role/other"}, {}),
    ("a session name", {"T": "role source=S role_session_name=me"}, {}),
    ("an external id", {"T": "role source=S external_id=ex"}, {}),
    ("tags", {"T": "role source=S session_tags=a=b"}, {}),
    ("transitive tags", {"T": "role source=S transitive_session_tags=a"}, {}),
    ("a source identity", {"T": "role source=S source_identity=me"}, {}),
    ("an endpoint", {"T": "role source=S endpoint_url=https://sts.example.test"}, {}),
    ("another partition", {"T": "role source=S region=cn-north-1"}, {}),
    ("a duration in the file", {"T": "role source=S duration_seconds=3600"}, {}),
    ("a duration by flag", {}, {"flags": "1h"}),
    ("a device", {"T": "role mfa source=S"}, {}),
    ("another source key", {}, {"keys": Keys("AKIADUMMYEXAMPLE0002")}),
]


@pytest.mark.parametrize(("what", "changes", "options"), SAME, ids=[row[0] for row in SAME])
def test_a_session_serves_what_changes_nothing(what, changes, options):
    assert made_from({**ROLE, **changes}, "T", **options) == made_from(ROLE, "T")


@pytest.mark.parametrize(
    ("what", "changes", "options"), DIFFERENT, ids=[row[0] for row in DIFFERENT]
)
def test_a_changed_config_is_a_miss(what, changes, options):
    assert made_from({**ROLE, **changes}, "T", **options) != made_from(ROLE, "T")


def test_tags_and_names_cannot_be_shifted_into_each_other():
    one = {"S": "", "T": "role source=S session_tags=a=b,c=d"}
    two = {"S": "", "T": "role source=S session_tags=a=b transitive_session_tags=c,d"}
    assert made_from(one, "T") != made_from(two, "T")

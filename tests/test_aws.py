"""What STS answers: credentials, or one error; botocore's own parser reads it, without a network."""

from __future__ import annotations

import pytest

from awsvault import AwsError, Secret, format_time
from tests.foreign import GIVEN, REFUSAL, Asked, sts_answer


def answered(status=200, **changed):
    return Asked(status, sts_answer({**GIVEN, **changed}).encode()).get()


def test_a_good_answer_is_credentials():
    found = answered(Expiration="2030-01-01T14:00:00.250+01:00")
    assert (found.access_key_id, found.secret_access_key) == ("ASIADUMMY", Secret("dummy"))
    assert (found.session_token, found.account_id) == (Secret("t"), "111111111111")
    assert format_time(found.expiration) == "2030-01-01T13:00:00Z"
    assert found.expiration.microsecond == 0


@pytest.mark.parametrize(
    "odd",
    [{"Expiration": text} for text in ("", "abc", "nan", "1e20", "1e400", "-1", "1795468268", "2030-01-01", "9" * 5000)]
    + [{name: ""} for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    + [{"AccessKeyId": "A&#10;B"}, {"SessionToken": "t&#13;&#10;X-Header: 1"}, {"SessionToken": "\u00fc"},
       {"AccessKeyId": "<b>x</b>"}],
    ids=str,
)  # fmt: skip
def test_odd_credentials_are_not_aws(odd):
    with pytest.raises(AwsError, match="AssumeRole: what answered is not AWS"):
        answered(**odd)


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "2030-01-01T12:00:00Z", "2030-01-05T00:00:00Z", "9999-12-31T23:59:59Z"]
)  # fmt: skip
def test_a_session_that_has_ended_or_never_ends_is_refused(text):
    with pytest.raises(AwsError, match=f"a session that ends {text}") as caught:
        answered(Expiration=text)
    assert "clock" in caught.value.hint


DEEP = "<a>" * 20_000 + "</a>" * 20_000


@pytest.mark.parametrize(
    "body",
    ["", "<", "{}", "<html/>", "<AssumeRoleResponse/>", sts_answer({}, ""), DEEP, "\0", sts_answer(GIVEN) * 2],
    ids=lambda body: body[:30],
)  # fmt: skip
def test_other_xml_is_not_aws(body):
    with pytest.raises(AwsError):
        Asked(200, body.encode()).get()


@pytest.mark.parametrize(
    "body",
    ["<ErrorResponse><Error/></ErrorResponse>", "<ErrorResponse><Error>x</Error></ErrorResponse>", "<a><Errors/></a>", DEEP,
     REFUSAL.replace("AccessDenied", "<b>c</b>"), REFUSAL.replace("</Error>", "</Error><Error/>"), "<ErrorResponse/>"],
    ids=lambda body: body[:60],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 500])
def test_odd_refusals_are_one_error(status, body):
    with pytest.raises(AwsError, match="AssumeRole: "):
        Asked(status, body.encode()).get()


def test_a_clock_that_is_wrong_is_no_session_that_has_ended(monkeypatch):
    """The end that AWS says counts from AWS's time, by which the request was signed."""
    asked = Asked(403, REFUSAL.replace("AccessDenied", "RequestExpired").encode())
    asked.answer[1]["date"] = "Tue, 01 Jan 2030 09:00:00 GMT"
    answer = sts_answer({**GIVEN, "Expiration": "2030-01-01T10:00:00Z"}).encode()
    send = asked._send

    def once(request, **_):
        response = send(request)
        asked.answer = (200, {}, answer)
        return response

    monkeypatch.setattr(asked, "_send", once)
    assert format_time(asked.get().expiration) == "2030-01-01T10:00:00Z"

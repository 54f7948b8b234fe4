"""What the errors of stores and of the libraries in between mean; real refusals are in sources/test_bucket.py."""

import errno

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from tasks.object_store import explained, one_line_errors
from tasks.stage import PawlineError, TemporaryError

URL = "s3://bucket/key"
SET = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            FileNotFoundError("The specified bucket\n does not exist."),
            f"{URL} does not exist (The specified bucket does",
        ),
        (PermissionError("Forbidden"), f"{URL} refuses access (Forbidden): {SET}"),
        (OSError(errno.EINVAL, "Bad Request"), f"{URL} cannot be used ([Errno 22] Bad Request): check the address"),
        (NoCredentialsError(), f"{URL} cannot be used (Unable to locate credentials): {SET}"),
    ],
)
def test_what_lasts_is_no_temporary_error(error: Exception, line: str) -> None:
    with pytest.raises(PawlineError) as raised, one_line_errors(URL):
        raise error
    assert not isinstance(raised.value, TemporaryError)
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EBUSY, "Please reduce your request rate."),  # as s3fs spells 503 SlowDown
        ConnectionError("cut"),
        TimeoutError(),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:9"),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    with pytest.raises(TemporaryError, match=rf"^{URL} cannot be reached \(.+\): check the network and the address"):
        raise explained(URL, error)


def test_a_long_story_is_cut_short_and_a_wrong_program_is_no_refusal() -> None:
    assert len(str(explained(URL, OSError("word " * 200)))) < 300
    with pytest.raises(KeyError), one_line_errors(URL):
        raise KeyError("a mistake of ours")

"""Each refusal has its own cause and next step, whichever client meets it.

SeaweedFS itself refuses a request of another time. The other answers are as AWS documents them, given by the proxy.
"""

import pytest

from etl.errors import DestinationError
from etl.files.objects import Objects
from tests.stores import Edited, proxied

DENIED = "User: arn:aws:iam::1:user/etl is not authorized to perform: "
ANSWERS = {
    "region, by name": (
        400,
        "<Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong</Message><Region>eu-west-1</Region>",
        "the bucket is in another region, eu-west-1. Set region in the options, or AWS_REGION",
    ),
    "region": (
        301,
        "<Code>PermanentRedirect</Code><Message>The bucket must be addressed elsewhere.</Message>",
        "the bucket is in another region. Set region in the options, or AWS_REGION",
    ),
    "key, off": (
        400,
        "<Code>KMS.DisabledException</Code><Message>arn:aws:kms:key/1 is disabled.</Message>",
        "KMS key that encrypts the bucket's objects cannot be used (arn:aws:kms:key/1 is disabled.). Enable the key",
    ),
    "key, not allowed": (
        403,
        f"<Code>AccessDenied</Code><Message>{DENIED}kms:GenerateDataKey on this resource</Message>",
        "kms:GenerateDataKey on this resource). Enable the key, and allow kms:GenerateDataKey and kms:Decrypt",
    ),
    "encryption demanded": (
        403,
        f"<Code>AccessDenied</Code><Message>{DENIED}s3:PutObject with an explicit deny in a policy</Message>",
        "with an explicit deny in a policy). Change the policy. If the policy demands encryption, set server_side",
    ),
    "requester pays": (
        403,
        "<Code>AccessDenied</Code><Message>Access Denied</Message>",
        "to put s3://datasets/a. Allow this for all objects below s3://datasets. If requesters pay, set request_payer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_refusal_is_one_line_with_its_own_next_step(seaweed_store, keys, answer):
    status, body, words = ANSWERS[answer]
    with proxied(seaweed_store) as proxy:
        proxy.judge = lambda _: Edited(lambda *_: (status, f"<Error>{body}</Error>".encode(), {}))
        with pytest.raises(DestinationError) as caught:
            Objects("s3://datasets", proxy.options).put("a", b"one", None)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_store_that_lives_in_another_hour_says_that_the_clock_is_wrong(seaweed_store, keys):
    with proxied(seaweed_store) as proxy:
        proxy.before = lambda told: told.headers.update({"x-amz-date": "20200101T000000Z"})
        objects = Objects("s3://datasets", proxy.options)
        for work in (lambda: objects.put("a", b"one", None), lambda: objects.get("a"), lambda: objects.list("")):
            with pytest.raises(DestinationError, match=r"^s3://datasets: this machine's clock is wrong\. Correct"):
                work()

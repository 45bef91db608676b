"""Why an object store refused a request, and what to do, read from its answer.

Pure. It serves every client of a store: that of the dataset, and that of Delta tables.
"""

import re

_CODES = {
    "NoSuchBucket": "there is no such bucket. Create the bucket, or correct its name",
    "InvalidAccessKeyId": "the store does not know this access key. Check the credentials",
    "SignatureDoesNotMatch": "the secret key does not match the access key. Check the credentials",
    "ExpiredToken": "the credentials have expired. Renew them, and run again",
    "UserProjectMissing": "requesters pay for this bucket, which is supported for s3:// only. Use another bucket",
}
"""What a store's error codes mean to the user."""
_OTHER_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_REDIRECTED = "redirect without LOCATION"
"""What a client says of the first of these codes."""
_ALLOW_KMS = "Enable the key, and allow kms:GenerateDataKey and kms:Decrypt"
_ALLOW_UNENCRYPTED = "Change the policy. If the policy demands encryption, set server_side_encryption in the options"


def refusal(text: str) -> str:
    """What the answer means, with the next step; empty if only the client's own words tell."""
    code, message = tag("Code", text), tag("Message", text)
    if code == "RequestTimeTooSkewed":
        return "this machine's clock is wrong. Correct the clock, for example with NTP"
    if code in _OTHER_REGION or _REDIRECTED in text:
        region = tag("Region", text)
        return f"the bucket is in another region{region and f', {region}'}. Set region in the options, or AWS_REGION"
    if code.startswith("KMS.") or "kms:" in message:
        return f"the KMS key that encrypts the bucket's objects cannot be used ({message}). {_ALLOW_KMS}"
    if code == "AccessDenied" and "explicit deny" in message:
        return f"a policy forbids this ({message}). {_ALLOW_UNENCRYPTED}"
    return _CODES.get(code, "")


def is_denied(text: str) -> bool:
    """Whether the store says that the credentials may not do this."""
    return re.search("403 Forbidden|401 Unauthorized|AccessDenied", text) is not None


def tag(name: str, text: str) -> str:
    """The content of the XML element in the answer; empty if there is none."""
    found = re.search(f"<{name}>([^<]*)</{name}>", text)
    return found[1] if found else ""

"""Why a request to a bucket failed, in a few words."""

import re

#: What to say of a failure, by what obstore's message holds.
_CAUSES = {
    "dns error|failed to lookup": "its host name can't be resolved",
    "connection ?refused": "the connection was refused",
    "connection ?reset|broken ?pipe|incomplete ?message|connection ?closed": "the connection broke",
    "connect ?timed|timedout|timed out|timeout\\(|operation timed": "it took too long to answer",
    "certificate": "its certificate is not trusted",
    "no ?such ?bucket|bucket not found|container not found|containernotfound": "there is no such bucket",
    "credential|unauthenticated|token": "the environment holds no valid credentials for it",
    "no space left": "its disk is full",
}


def cause_of(error: BaseException) -> str:
    """Why a request failed. No message is passed on: that of a server can hold keys and tokens."""
    text = str(error)
    if answered := re.search(r"status code: (\d{3})(?: ([A-Z][A-Za-z ]{2,40}))?", text):
        status, said = answered[1], (answered[2] or "").strip()
        if status != "404":
            return f"it answered {status} {said}".rstrip()
    for pattern, cause in _CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return cause
    return f"the request failed ({type(error).__name__})"

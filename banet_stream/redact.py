"""Credentials stay out of everything that is shown: logs, errors, tracebacks, statistics."""

from __future__ import annotations

import logging
import re

HIDDEN = "***"
# What stands before the last @ of a URL: user and password, whatever characters they have.
_USER = re.compile(r"([a-z][a-z0-9+.\-]*://)[^\s'\"]*@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&][^=&\s'\"]*(?:pass|pwd|token|key|secret|auth|sig|user|streamid)[^=&\s'\"]*=)[^&\s'\"]+",
    re.IGNORECASE,
)
# An RTMP address ends in the stream's key, which is all that a stranger needs to broadcast there.
_STREAM_KEY = re.compile(r"(rtmp[a-z]*://[^/\s'\"]+/[^/\s'\"]+/)[^\s'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """``text`` with the credentials of every URL in it replaced by ``***``."""
    for pattern, shown in ((_USER, rf"\1{HIDDEN}@"), (_QUERY, rf"\1{HIDDEN}"), (_STREAM_KEY, rf"\1{HIDDEN}")):
        text = pattern.sub(shown, text)
    return text


class RedactingFormatter(logging.Formatter):
    """Redacts whole log entries, tracebacks included: FFmpeg's errors carry the URL."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return redact(super().format(record))

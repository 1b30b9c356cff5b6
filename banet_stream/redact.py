"""Credentials stay out of everything that is shown: logs, errors, tracebacks, statistics."""

from __future__ import annotations

import argparse
import logging
import re
from typing import NoReturn

HIDDEN = "***"
SCHEME = r"[a-z][a-z0-9+.\-]{0,30}://"
# A quotation mark within a word belongs to it; before anything else it ends a URL.
LETTER = r"(?:[^\s'\"]|['\"](?=\w))"
# Names of parameters that hold something to hide; ``loginpas`` and ``usr`` are cameras'.
SECRET = r"(?:pas|pwd|pw|psw|token|key|secret|auth|sig|user|usr|login|streamid)"
NAME = rf"[^\s'\"/?&=]{{0,60}}{SECRET}[^\s'\"/?&=]{{0,60}}="
# What stands before the last @ of a URL: user and password, whatever characters they have.
_USER = re.compile(rf"({SCHEME})[^\s'\"]*@", re.IGNORECASE)
# The same where they hold spaces or quotation marks. A port is no password: what follows it is ordinary text.
_PORT = r"\d{1,5}(?:[\s:/?,;.)]|['\"](?!\w)|$)"
_ODD_USER = re.compile(
    rf"({SCHEME})(?!\[)[^\s/@:]*:(?!\s|{_PORT})(?:(?!://)[^\n])*?@(?:[^\s'\"]*@)?", re.IGNORECASE
)
_QUERY = re.compile(rf"([?&]{NAME})(?:(?!&){LETTER})+", re.IGNORECASE)
# Some cameras take them within the path: all that follows in it may be more of them.
_PATH = re.compile(rf"({SCHEME}[^\s'\"?]*?[/;,]{NAME})(?:(?![&?]){LETTER})+", re.IGNORECASE)
# An RTMP address ends in the stream's key, which is all that a stranger needs to broadcast there.
_STREAM_KEY = re.compile(
    rf"(rtmp[a-z]{{0,4}}://[^/\s'\"]+/(?:[^/\s'\"]+/)?){LETTER}*(?![:,;.)]){LETTER}", re.IGNORECASE
)
_PATTERNS = (
    (_USER, rf"\1{HIDDEN}@"),
    (_ODD_USER, rf"\1{HIDDEN}@"),
    (_QUERY, rf"\1{HIDDEN}"),
    (_PATH, rf"\1{HIDDEN}"),
    (_STREAM_KEY, rf"\1{HIDDEN}"),
)


def redact(text: str) -> str:
    """``text`` with the credentials of every URL in it replaced by ``***``."""
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


class RedactingFormatter(logging.Formatter):
    """Redacts whole log entries, tracebacks included: FFmpeg's errors carry the URL."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return redact(super().format(record))


class RedactingParser(argparse.ArgumentParser):
    """Its errors repeat what was typed, a URL among it."""

    def error(self, message: str) -> NoReturn:
        """See argparse.ArgumentParser."""
        super().error(redact(message))

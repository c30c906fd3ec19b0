"""Errors meant for a person: one line that says what is wrong, where, and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

# The look behind keeps the search linear: what may be a scheme begins where its letters do, not at each of them. An
# address ends at a blank alone: a password may hold quotes.
_URI = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://\S+")
_SEPARATOR = re.compile(r"[/?&;]")
_END_IN_PATH = re.compile(r"[&;]|_[A-Za-z]+=(?![=&;]|$)|$")
_END_IN_QUERY = re.compile(r"[&;]|$")
_SECRET = re.compile(r"pass|pwd|pw|token|key|secret|auth|sig|user|usr|login", re.I)
_SECRET_NAME = re.compile(r"pass|pwd|token|secret|auth|credential|(^|_)key($|_)", re.I)


def printable(text: str) -> str:
    """`text` without anything that a terminal would take for a command."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


LONGEST = 4000
"""Characters of a message; of a longer one the beginning is told."""


def shortened(text: str) -> str:
    """`text`, or the beginning of a long one."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"


def redact(text: str) -> str:
    """`text` without the credentials of the URIs in it: `rtsp://***@host/`, `?password=***`.

    All up to the last `@` of a URI goes: passwords do hold an unescaped `@` or `/`.
    """

    def shown(match: re.Match[str]) -> str:
        uri = match[0].rstrip("'\":,;.)]}>")  # what the sentence around it put there
        return _redact_uri(uri) + match[0][len(uri) :]

    return _URI.sub(shown, text)


def _redact_uri(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    *user, place = rest.rsplit("@", 1)
    return f"{scheme}://{'***@' if user else ''}{redact_parameters(place)}"


def redact_parameters(place: str) -> str:
    """What follows a URI's `//`, with `***` for the values of parameters that are secret by their names.

    Parameters may stand in the path, and may be parted by `_` there, as recorders have it:
    `/user=me_password=x_channel=1`. A value may hold a `?` and parameters of its own, so the search goes on right
    behind a harmless name.
    """
    shown, at, its_end = [], 0, _END_IN_PATH
    while (equals := place.find("=", at)) >= 0:
        *before, name = _SEPARATOR.split(part := place[at:equals])
        if before and "?" in part:
            its_end = _END_IN_QUERY
        shown.append(place[at : equals + 1])
        at = equals + 1
        if _SECRET.search(name) and (end := its_end.search(place, at)):
            shown.append("***")
            at = end.start()
    return "".join(shown) + place[at:]


def redact_setting(name: str, value: Any) -> Any:
    """A property's value as it may be shown: no credentials of a URI, nothing of a password, token or key."""
    if isinstance(value, list):
        return [redact_setting(name, v) for v in value]
    if isinstance(value, dict):
        return {key: redact_setting(f"{name}_{key}", v) for key, v in value.items()}
    if not isinstance(value, str):
        return value
    if value and _SECRET_NAME.search(name):
        return "***"
    # With a blank in its password, too; within a message nobody knows where such an address ends.
    return _redact_uri(value) if "://" in value else value


def spelt(value: Any) -> str:
    """A value as it was typed: Python keeps a byte that is no UTF-8 as half a letter, `\\udce9` for `\\xe9`."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", repr(value))


_NEEDED = {
    "int_type": "a whole number is needed",
    "int_parsing": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "float_type": "a number is needed",
    "float_parsing": "a number is needed",
    "finite_number": "a finite number is needed",
    "bool_type": "true or false is needed",
    "bool_parsing": "true or false is needed",
    "string_type": "text is needed",
    "string_unicode": "it is not UTF-8; if it names a file or a folder, rename that",
    "list_type": "a list is needed",
    "tuple_type": "a list is needed",
    "dict_type": "a mapping is needed",
    "model_type": "a mapping is needed",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "multiple_of": "it must be a multiple of {multiple_of}",
    "string_too_short": "it needs at least {min_length} characters",
    "string_too_long": "it may have up to {max_length} characters",
}
"""What a value lacks, by pydantic's type of error."""


def explain(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, in our words: `problem` is one of a pydantic ValidationError's `errors()`."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "string_too_short" and context["min_length"] == 1:
        return "it must not be empty"
    if kind in _NEEDED:
        limits = {name: int(x) if isinstance(x, float) and x.is_integer() else x for name, x in context.items()}
        return _NEEDED[kind].format(**limits)
    return str(problem["msg"]).removeprefix("Value error, ")


class UserError(Exception):
    """Something outside the program is wrong (a file, an option, a camera).

    Credentials in URIs never get into it. Commands print it as one line on stderr and exit non-zero; a node that
    raises it stops the graph.
    """

    def __init__(self, text: str) -> None:
        super().__init__(shortened(redact(" ".join(str(text).split()))))

    def at(self, node: str) -> UserError:
        """The same error with the node's name in front, unless it stands there already."""
        text = str(self)
        return self if text.startswith(f"{node}: ") else UserError(f"{node}: {text}")


class GraphError(UserError):
    """A graph that cannot run: syntax, unknown names, links that do not fit."""


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.55, between: str = ", ") -> str:
    """`"; did you mean 'x'?"` for the nearest of `known`, or the list of them when none is near.

    likeness: from which on it is near, 0 to 1 (difflib's ratio); more where words are short and alike anyway.
    between: what stands between them in the list.
    """
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=likeness)
    if near:
        return f"; did you mean '{near[0]}'?"
    if not choices:
        return ""
    shown = between.join([*choices[:20], *(["..."] if len(choices) > 20 else [])])
    return f"; known: {shown}"

"""JSON values with the slips of known writers: what keeps bytes from being one, and how they are mended."""

import re
from typing import Any

import msgspec

from user_embeddings_dagster.exports.json_window import Malformed

TRUNCATED = "Input data was truncated"  # as msgspec says it, also of a lone surrogate
TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
_UNTOLD = "nested too deep"
# An escape: one that is right, among them a pair of surrogates; a surrogate without its other half; \xNN; no escape.
_ESCAPE = re.compile(
    rb"\\(?:([\"\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|x([0-9a-fA-F]{2})|)"
)


def repair(raw: bytes) -> bytes:
    """JSON with slips of known writers mended: `\\xNN`, unknown escapes, lone surrogates, bytes that are no UTF-8."""
    text = raw.decode("utf-8", "replace").encode()

    def escape(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return match[0]
        if match[2]:
            return rb"\ufffd"
        return rb"\u00" + match[3] if match[3] else rb"\\"

    return _ESCAPE.sub(escape, text)


def decode(decoder: msgspec.json.Decoder, raw: bytes) -> Any:
    """`raw` decoded, mended if need be. Raises Malformed with malformed_json or wrong_type; never any content."""
    for attempt in (lambda: raw, lambda: repair(raw)):
        try:
            return decoder.decode(attempt())
        except msgspec.ValidationError:
            # Raised as soon as a type is wrong: what follows has not been looked at.
            raise Malformed("wrong_type" if not fault(attempt()) else "malformed_json") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    raise Malformed("malformed_json")


def fault(raw: bytes) -> str:
    """What keeps `raw` from being JSON: "" if nothing does, TRUNCATED, or other words; never any content."""
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except RecursionError:
        return _UNTOLD
    except UnicodeDecodeError:
        return "no UTF-8"
    except msgspec.DecodeError as error:
        return str(error)
    return ""


def has_lone_surrogate(raw: bytes) -> bool:
    """Whether an escape names half of a pair without the other."""
    return any(match[2] for match in _ESCAPE.finditer(raw))


def ends(error: str) -> bool:
    """Whether a value ends inside of the bytes that `fault` was asked about, or may."""
    return error in ("", _UNTOLD) or TRAILING.search(error) is not None

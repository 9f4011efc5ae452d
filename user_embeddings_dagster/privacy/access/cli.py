"""`user-embeddings access …`: proofs, tokens, grants, the person's own embedding, the log and its anchors.

A contributor signs the challenge's text wherever their key is (a wallet's personal_sign, or Ed25519); no private key
ever comes here. Only `enrol`, `anchor` and `verify-log` are the operator's; the rest proves itself.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec

from user_embeddings_dagster.privacy.access.anchors import Anchor, new_anchor, read_anchor
from user_embeddings_dagster.privacy.access.embeddings import Absent, EmbeddingAccess
from user_embeddings_dagster.privacy.access.log import LogDamaged
from user_embeddings_dagster.privacy.access.proofs import Refused
from user_embeddings_dagster.privacy.access.verification import verify
from user_embeddings_dagster.privacy.erasure.identity import check_user
from user_embeddings_dagster.settings import Layout


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command with its own commands."""
    access = commands.add_parser("access", help="proofs of keys, tokens, a person's own embedding, the access log")
    steps = access.add_subparsers(dest="step", required=True)
    enrol = steps.add_parser("enrol", help="say which key is a contributor's")
    enrol.add_argument("user_id")
    enrol.add_argument("key", help="ed25519:<64 hex digits> or eip191:0x<address>")
    enrol.add_argument("--replace", action="store_true", help="a lost key; everything that it granted goes with it")
    challenge = steps.add_parser("challenge", help="print the text to sign, valid once and for five minutes")
    challenge.add_argument("user_id")
    challenge.add_argument("datadao")
    challenge.add_argument("actions", nargs="+", help="of read, update, remove; or grant; or revoke")
    challenge.add_argument("--key", help="grant, revoke: the other's key")
    challenge.add_argument("--allow", help="grant: of read, update, remove, with spaces between")
    challenge.add_argument("--expires", type=int, help="grant: until when, seconds since 1970")
    for name, told in (
        ("prove", "print a capability token for what a signed challenge names"),
        ("grant", "let another key act, as a signed challenge says"),
        ("revoke", "take a grant back, as a signed challenge says"),
    ):
        proof = steps.add_parser(name, help=told)
        proof.add_argument("challenge", type=Path, help="file with the text as it was signed")
        proof.add_argument("key")
        proof.add_argument("signature", help="hex")
    for name, told in (
        ("read", "print the embedding as JSON"),
        ("hide", "give it to nobody but the owner"),
        ("serve", "take back `hide` or `remove`"),
        ("remove", "remove it from the disk, and keep it out"),
    ):
        using = steps.add_parser(name, help=told)
        using.add_argument("user_id")
        using.add_argument("datadao")
        using.add_argument("--token", type=Path, required=True, help="file with the token")
    revoking = steps.add_parser("revoke-token", help="refuse a token, and all narrowed from it, from now on")
    revoking.add_argument("--token", type=Path, required=True, help="file with the token")
    verifying = steps.add_parser("verify-log", help="check the access log's chain, entries and head")
    verifying.add_argument("--anchors", type=Path, nargs="*", default=[], help="anchors kept elsewhere")
    steps.add_parser("anchor", help="print the log's head and commitments to embeddings, to be kept elsewhere")


def run(options: argparse.Namespace, layout: Layout) -> int:
    """Do what was asked; 0, 1 if it was refused or the log is not intact, 2 if it was asked wrongly."""
    try:
        with EmbeddingAccess(layout) as access:
            for line in _answer(options, access, layout):
                sys.stdout.write(f"{line}\n")
    except (Refused, Absent, LogDamaged) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _answer(options: argparse.Namespace, access: EmbeddingAccess, layout: Layout) -> Iterator[str]:
    match options.step:
        case "enrol":
            check_user(options.user_id)  # a key of a mistyped one would be nobody's
            if not access.enrol(options.user_id, options.key, options.replace):
                raise Refused
        case "challenge":
            named = {"key": options.key, "actions": options.allow, "expires": options.expires}
            details = {name: str(value) for name, value in named.items() if value is not None}
            _check_details(options.actions, details)
            yield access.challenge(options.user_id, options.datadao, options.actions, details)
        case "prove" | "grant" | "revoke":
            act = {"prove": access.token, "grant": access.grant, "revoke": access.revoke}[options.step]
            signed = _text(options.challenge, "the text of a challenge as it was signed")
            done = act(signed, options.key, bytes.fromhex(options.signature.removeprefix("0x")))
            yield from [done] if isinstance(done, str) else []
        case "read":
            row = asdict(access.read(_text(options.token), options.user_id, options.datadao))
            yield json.dumps(row, default=lambda moment: moment.isoformat())
        case "hide" | "serve":
            access.serve(_text(options.token), options.user_id, options.datadao, options.step == "serve")
        case "remove":
            held = access.remove(_text(options.token), options.user_id, options.datadao)
            yield "removed" if held else "there was none; it is kept out"
        case "revoke-token":
            access.revoke_token(_text(options.token))
        case "anchor":
            folders = sorted(path.name for path in layout.lancedb.glob("*") if path.is_dir())
            yield new_anchor(layout, folders).to_json()
        case "verify-log":
            found = verify(access.log, [_anchor(path).head for path in options.anchors])
            if not found.verified:
                raise LogDamaged(f"NOT INTACT after {found.count} entries: {found.reason}")
            torn = f"; {found.torn} bytes of an entry that was never finished follow" if found.torn else ""
            yield f"intact: {found.count} entries, head {found.head}{torn}"


def _check_details(actions: list[str], details: dict[str, str]) -> None:
    """Raises ValueError on what could only be refused once its owner has signed it."""
    needed = {"grant": {"key", "actions", "expires"}, "revoke": {"key"}}.get(actions[0], set())
    if details.keys() != needed:
        raise ValueError("grant takes --key, --allow and --expires, revoke takes --key, and other actions none of them")
    if "expires" in details and int(details["expires"]) <= time.time():
        raise ValueError("--expires is in the past: it is seconds since 1970")


def _anchor(path: Path) -> Anchor:
    what = "an anchor as `access anchor` prints it"
    try:
        return read_anchor(_text(path, what))
    except msgspec.DecodeError:
        raise ValueError(f"{path}: expected {what}") from None


def _text(path: Path, what: str = "a token as `access prove` prints it") -> str:
    """A file's text without the end of line that a terminal put behind it. Raises ValueError, with `what` it holds."""
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; expected a file with {what}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no text; expected {what}") from None

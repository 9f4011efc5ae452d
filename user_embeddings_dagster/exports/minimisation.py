"""Data minimisation: what of the raw exports is read, by name, and what is known to be there and never read (C13).

Readers take the fields of READ by name and skip everything else, so that a field which a platform adds tomorrow is
not read either. NOT_READ lists what is known to be skipped, for people who look for it; `survey` tells of a raw file
how many fields it has of these, and how many that neither list knows.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import msgspec

from user_embeddings_dagster.exports import (
    chatgpt,
    chatgpt_messages,
    dfusion,
    dfusion_messages,
    json_source,
    pushshift,
    reddit,
    telegram,
    telegram_messages,
)
from user_embeddings_dagster.exports.archive import BROKEN, Archive, is_zip
from user_embeddings_dagster.exports.lines import peek
from user_embeddings_dagster.exports.reader import Format, RawFile

FILES = "files"
"""Kind of data of a member of an archive, or of a bare file, that is never opened."""

_HEAD = 64 << 10  # bytes of a document whose keys are looked at
_MEMBERS = 10_000
_KEY = re.compile(rb'(?<!\\)"([A-Za-z@_][\w@]{0,60})"\s*:')


def _fields(*structs: type[msgspec.Struct]) -> frozenset[str]:
    """Names of fields in the files, of typed structs."""
    return frozenset(field.encode_name for struct in structs for field in msgspec.structs.fields(struct))


_REDDIT = frozenset(reddit.NEEDED[reddit.COMMENTS]) | frozenset(reddit.NEEDED[reddit.POSTS])
_DFUSION = _fields(
    dfusion_messages.Message,
    *(
        value
        for value in vars(dfusion_messages).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    ),
)
READ: Mapping[str, frozenset[str]] = {
    "reddit_request_zip": _REDDIT | {"account name"},
    "reddit_request_csv": _REDDIT | {"account name"},
    "reddit_request_unread": frozenset(),
    "pushshift": frozenset((*pushshift.COMMENT.keys, *pushshift.SUBMISSION.keys)),
    "telegram_desktop": _fields(
        telegram_messages.Message, telegram_messages.Entity, telegram_messages.Poll, telegram_messages.Answer
    )
    | {"chats", "left_chats", "list", "messages", "personal_information", "name", "type", "id"}
    | {"user_id", "first_name", "last_name", "username"},
    "telegram_dfusion": _DFUSION
    | {"chats", "chat_id", "contents", "source", "user", "user_id", "submissionId", "revision"},
    "chatgpt": _fields(
        chatgpt_messages.Conversation, chatgpt_messages.Node, chatgpt_messages.Message, chatgpt_messages.Author,
        chatgpt_messages.Content, chatgpt_messages.Metadata,
    )
    | {"conversations"},
}  # fmt: skip
"""Every field that a reader may take a value from, by format; all others are skipped by the parsers."""

NOT_READ: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "reddit_request_zip": {
        "IP address": ("ip",),
        "payments": ("gildings",),
        "links and media": ("media", "url"),
        FILES: reddit.UNREAD_FILES,
    },
    "reddit_request_csv": {"IP address": ("ip",), "payments": ("gildings",), "links and media": ("media", "url")},
    "reddit_request_unread": {FILES: reddit.UNREAD_FILES},
    "pushshift": {
        "account": ("author_fullname", "author_created_utc", "author_cakeday", "author_premium", "author_is_blocked"),
        "looks": (
            "author_flair_background_color", "author_flair_css_class", "author_flair_richtext",
            "author_flair_template_id", "author_flair_text", "author_flair_text_color", "author_flair_type",
            "author_patreon_flair",
        ),
        "votes and payments": (
            "all_awardings", "awarders", "can_gild", "controversiality", "downs", "gilded", "gildings", "likes",
            "score", "top_awarded_type", "total_awards_received", "ups", "upvote_ratio",
        ),
        "moderation": (
            "approved_at_utc", "approved_by", "ban_note", "banned_at_utc", "banned_by", "mod_note", "mod_reason_by",
            "mod_reason_title", "mod_reports", "num_reports", "removal_reason", "report_reasons", "user_reports",
        ),
        "links and media": ("media", "media_embed", "media_metadata", "permalink", "preview", "thumbnail", "url"),
    },
    "telegram_desktop": {
        "phone numbers": ("phone_number", "vcard", "contact_vcard", "contacts", "frequent_contacts"),
        "IP address and device": ("sessions", "web_sessions", "ips", "application_name", "device_model"),
        "birth date": ("date_of_birth", "birthday"),
        "biography and pictures": ("bio", "profile_pictures", "stories"),
        "places": ("latitude", "longitude", "place_name", "address", "live_location_period_seconds"),
        "payments": ("amount", "currency", "receipt_message_id", "giveaway_information", "gift_code", "stars"),
        "reactions and views": ("reactions", "views", "inline_bot_buttons"),
        "names and sizes of files": (
            "thumbnail", "file_name", "file_size", "mime_type", "width", "height", "duration_seconds",
        ),
        "calls and others": ("other_data", "discard_reason", "drafts"),
    },
    "telegram_dfusion": {
        "phone numbers": ("phone", "phoneNumber", "phone_number", "contact", "vcard"),
        "IP address and device": ("ip", "device", "deviceModel", "session", "userAgent"),
        "access": ("accessHash", "fileReference", "file_reference"),
        "places": ("geo", "location", "venue"),
        "reactions and views": ("reactions", "views", "forwards", "interaction_info", "replyMarkup", "reply_markup"),
    },
    "chatgpt": {
        "e-mail of the account": ("email",),
        "phone number": ("phone_number",),
        "birth date": ("birth_year", "birthdate"),
        "payments": ("chatgpt_plus_user", "billing_address", "has_payg_project_spend_limit"),
        "device and place": ("user_agent", "ip_address", "device_id", "user_timezone", "async_source"),
        "workings of the service": (
            "blocked_urls", "conversation_template_id", "default_model_slug", "gizmo_id", "gizmo_type",
            "is_archived", "model_slug", "moderation_results", "plugin_ids", "safe_urls", "title", "voice",
        ),
        FILES: (
            "chat.html", "message_feedback.json", "model_comparisons.json", "shared_conversations.json",
            "shopping.json", "sora.json", "user_settings.json",
        ),
    },
}  # fmt: skip
"""Known fields and files that are never read, by format and kind of data."""


def known_fields(format: str) -> frozenset[str]:
    """Every field that is known of a format, read or not."""
    return READ[format].union(*NOT_READ[format].values())


@dataclass(frozen=True)
class Survey:
    """What is not read of a raw file: known fields and files (names of NOT_READ), and how many that no list knows.

    Of the unknown only the number is told: who names a field may name it like a person.
    """

    known: frozenset[str]
    n_unknown: int


def survey(file: RawFile, format: Format) -> Survey:
    """Fields and members of a raw file that its reader skips: of documents, those in the first 64 kB. Never raises on
    bad content."""
    listed = {name for names in NOT_READ[format.name].values() for name in names}
    found = set(_found(file, format))
    return Survey(frozenset(found & listed - READ[format.name]), len(found - listed - READ[format.name]))


def _found(file: RawFile, format: Format) -> Iterator[str]:
    if format.name == "reddit_request_zip":
        yield from _reddit_members(file)
    elif format.name == "reddit_request_csv":
        with file.open() as stream:
            yield from _header(stream.readline(4096))
    elif format.name == "reddit_request_unread":
        yield from (name for name in reddit.UNREAD_FILES if file.base_name.lower().endswith(name))
    elif format.name == "pushshift":
        yield from _keys(peek(file, _HEAD))
    else:
        wanted = {"telegram_desktop": telegram.MEMBER, "telegram_dfusion": dfusion.MEMBER}.get(
            format.name, chatgpt.MEMBER
        )
        for head in json_source.heads(file, wanted):
            yield from _keys(head)
        if format.name == "chatgpt":
            yield from _chatgpt_members(file)


def _reddit_members(file: RawFile) -> Iterator[str]:
    try:
        with Archive(file) as archive:
            for member in islice(archive.members, _MEMBERS):
                name = member.name.rsplit("/", 1)[-1]
                if name in (reddit.COMMENTS, reddit.POSTS):
                    with archive.open(member) as stream:
                        yield from _header(stream.readline(4096))
                elif name != reddit.STATISTICS:
                    yield name
    except BROKEN:
        return


def _chatgpt_members(file: RawFile) -> Iterator[str]:
    if not is_zip(file):
        return
    try:
        with Archive(file) as archive:
            for member in islice(archive.members, _MEMBERS):
                name = member.name.rsplit("/", 1)[-1]
                if name == "user.json":
                    with archive.open(member) as stream:
                        yield from _keys(stream.read(_HEAD))
                elif not chatgpt.MEMBER.fullmatch(name) and "." in name:
                    yield name if name in NOT_READ["chatgpt"][FILES] else "." + name.rsplit(".", 1)[-1]
    except BROKEN:
        return


def _header(line: bytes) -> Iterator[str]:
    try:
        yield from next(csv.reader([line.decode("utf-8-sig", "replace").rstrip("\r\n")]), [])
    except csv.Error:
        return


def _keys(head: bytes) -> Iterator[str]:
    yield from (match.decode() for match in _KEY.findall(head))


def as_markdown() -> str:
    """NOT_READ for a reader of the UI."""
    lines = ["| format | kind of data | never read |", "|---|---|---|"]
    for format, kinds in NOT_READ.items():
        lines += [
            f"| {format} | {kind} | {', '.join(f'`{name}`' for name in names)} |" for kind, names in kinds.items()
        ]
    return "\n".join([*lines, "", "Readers take fields by name: what a platform adds is not read until it is listed."])

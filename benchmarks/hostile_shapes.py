"""Valid exports of every format around elements of one's choice: what hostile content is put beside.

An element is one Telegram or DFusion message, one ChatGPT conversation, one line of a dump, one CSV row. The texts of
good elements begin with "good" and are found again in the messages table.
"""

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Element = Callable[[int], bytes]
DAY = 86_400
START = 1_700_000_000


MALFORMED = frozenset(
    {"malformed_json", "too_deep", "too_long", "wrong_type", "truncated", "not_an_object", "missing_field"}
)


@dataclass(frozen=True)
class Attack:
    """`write(folder, megabytes)`: files in `folder`, of about that size where the attack is one of size."""

    name: str
    write: Callable[[Path, int], object]
    good: int = 3  # good texts that must be kept
    # One of these is in rejected_records; empty: nothing is rejected; None: either.
    reasons: frozenset[str] | None = frozenset()
    sized: bool = False


@dataclass(frozen=True)
class Shape:
    """How a format writes elements down: `head` + elements joined by `between` + `tail`; `element(n)` is a good one."""

    format: str  # the registry's name
    file: str
    head: bytes
    between: bytes
    tail: bytes
    element: Element

    def document(self, elements: Iterable[bytes]) -> bytes:
        """The elements as one document."""
        return self.head + self.between.join(elements) + self.tail

    def good(self, count: int = 3) -> bytes:
        """A document of good elements."""
        return self.document(self.element(number) for number in range(1, count + 1))

    def around(self, *hostile: bytes) -> bytes:
        """A good element, the hostile ones, two more good elements."""
        return self.document((self.element(1), *hostile, self.element(2), self.element(3)))

    def stream(self, path: Path, hostile: Iterator[bytes]) -> None:
        """The same written to a file piece by piece; `hostile` pieces bring their own separators."""
        with path.open("wb") as out:
            out.write(self.head + self.element(1) + self.between)
            out.writelines(hostile)
            out.write(self.between + self.element(2) + self.between + self.element(3) + self.tail)


def _telegram(number: int) -> bytes:
    at = START + number * DAY
    return (
        b'{"id": %d, "type": "message", "date": "2023-11-14T22:13:20", "date_unixtime": "%d", "from": "Ann Other", '
        b'"from_id": "user1", "text": "good telegram message number %d"}' % (number, at, number)
    )


def _dfusion(number: int) -> bytes:
    return (
        b'{"id": %d, "date": %d, "message": "good dfusion message number %d", "out": false, "fromId": {"userId": "7", '
        b'"className": "PeerUser"}, "peerId": {"channelId": "5", "className": "PeerChannel"}, "className": "Message"}'
        % (number, START + number * DAY, number)
    )


def _chatgpt(number: int) -> bytes:
    return (
        b'{"title": "t", "create_time": %d.5, "mapping": {"r%d": {"id": "r%d", "parent": null, "message": null}, '
        b'"a%d": {"id": "a%d", "parent": "r%d", "message": {"id": "a%d", "author": {"role": "user"}, "create_time": '
        b'%d.5, "content": {"content_type": "text", "parts": ["good conversation number %d"]}}}}, "current_node": '
        b'"a%d", "conversation_id": "c%d"}' % (START + number * DAY, *[number] * 6, START + number * DAY, *[number] * 3)
    )


def _comment(number: int) -> bytes:
    return (
        b'{"id": "c%d", "author": "ann", "created_utc": %d, "edited": false, "subreddit": "pics", "link_id": "t3_l1", '
        b'"parent_id": "t3_l1", "body": "good comment number %d"}' % (number, START + number * DAY, number)
    )


def _row(number: int) -> bytes:
    return (
        b"c%d,/p,2023-11-%02d 13:46:40 UTC,,pics,0,https://www.reddit.com/r/pics/comments/l1/,,"
        b"good row number %d of a data request," % (number, number % 27 + 1, number)
    )


CSV_HEAD = b"id,permalink,date,ip,subreddit,gildings,link,parent,body,media\n"
SHAPES = {
    shape.format: shape
    for shape in (
        Shape(
            "telegram_desktop", "result.json",
            b'{"name": "g", "type": "public_supergroup", "id": 5, "messages": [\n  ', b",\n  ", b"\n ]\n}\n", _telegram,
        ),
        Shape(
            "telegram_dfusion", "dump.json",
            b'{"revision": "01.01", "source": "telegramMiner", "user": "9", "chats": [{"chat_id": -1000000000005, '
            b'"contents": [', b", ", b"]}]}", _dfusion,
        ),
        Shape("chatgpt", "conversations.json", b"[", b", ", b"]", _chatgpt),
        Shape("pushshift", "RC_2023-11.ndjson", b"", b"\n", b"\n", _comment),
        Shape("reddit_request_csv", "comments.csv", CSV_HEAD, b"\n", b"\n", _row),
    )
}  # fmt: skip
JSON = ("telegram_desktop", "telegram_dfusion", "chatgpt", "pushshift")
ARRAYS = JSON[:3]
ZIPPED = {"telegram_desktop": "result.json", "chatgpt": "conversations.json", "reddit_request_zip": "comments.csv"}


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """A deflated zip; the same arguments give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, data)
    return buffer.getvalue()


def good_member(format: str) -> tuple[str, bytes]:
    """Name and content of a good member of a format's archive."""
    shape = SHAPES.get(format) or SHAPES["reddit_request_csv"]
    return ZIPPED[format], shape.good()

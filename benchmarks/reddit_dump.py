"""Made-up Reddit dumps with the keys, key order and line lengths of three eras of the real ones."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import zstandard

WORDS = [f"{a}{b}" for a in ("ta", "re", "mo", "si", "ka", "lu", "né", "vo", "qu", "the") for b in range(400)]


def _text(rng: Random, low: int, high: int) -> str:
    text = " ".join(rng.choices(WORDS, k=rng.randint(low, high)))
    return text.replace(" ", "\n\n", 1) + ' "quoted" \U0001f642' if rng.random() < 0.4 else text


def _author(rng: Random) -> str:
    return "[deleted]" if rng.random() < 0.05 else f"user{rng.randint(0, 50_000)}"


def comment_2018(rng: Random, number: int) -> dict:
    """One comment of 2018: 33 keys."""
    link, community = f"9k{number // 40:x}", f"sub{rng.randint(0, 300)}"
    return {
        "author": _author(rng), "author_cakeday": None, "author_flair_background_color": None,
        "author_flair_css_class": None, "author_flair_richtext": [], "author_flair_text": None,
        "author_flair_type": "text", "author_fullname": f"t2_{rng.randint(0, 10**8):x}", "body": _text(rng, 3, 60),
        "can_gild": True, "can_mod_post": False, "collapsed": False, "collapsed_reason": None, "controversiality": 0,
        "created_utc": 1_538_352_000 + number, "distinguished": None,
        "edited": 1_538_352_060 + number if rng.random() < 0.05 else False, "gilded": 0, "id": f"e6{number:x}",
        "is_submitter": False, "link_id": f"t3_{link}", "no_follow": True, "parent_id": f"t1_e6{max(0, number - 5):x}",
        "permalink": f"/r/{community}/comments/{link}/title/e6{number:x}/", "removal_reason": None,
        "retrieved_on": 1_540_000_000, "score": rng.randint(-5, 200), "send_replies": True, "stickied": False,
        "subreddit": community, "subreddit_id": "t5_2qh1i", "subreddit_name_prefixed": f"r/{community}",
        "subreddit_type": "public",
    }  # fmt: skip


def comment_2021(rng: Random, number: int) -> dict:
    """One comment of 2021: 51 keys."""
    link, community = f"np{number // 40:x}", f"sub{rng.randint(0, 300)}"
    return {
        "all_awardings": [], "archived": False, "associated_award": None, "author": _author(rng),
        "author_created_utc": 1_500_000_000 + rng.randint(0, 10**8), "author_flair_background_color": None,
        "author_flair_css_class": None, "author_flair_richtext": [], "author_flair_template_id": None,
        "author_flair_text": None, "author_flair_text_color": None, "author_flair_type": "text",
        "author_fullname": f"t2_{rng.randint(0, 10**8):x}", "author_patreon_flair": False, "author_premium": False,
        "awarders": [], "body": _text(rng, 3, 60), "can_gild": True, "can_mod_post": False, "collapsed": False,
        "collapsed_because_crowd_control": None, "collapsed_reason": None, "collapsed_reason_code": None,
        "comment_type": None, "controversiality": 0, "created_utc": 1_622_505_600 + number, "distinguished": None,
        "edited": 1_622_505_660 + number if rng.random() < 0.05 else False, "gilded": 0, "gildings": {},
        "id": f"h0{number:x}", "is_submitter": False, "link_id": f"t3_{link}", "locked": False,
        "name": f"t1_h0{number:x}", "no_follow": True, "parent_id": f"t1_h0{max(0, number - 5):x}",
        "permalink": f"/r/{community}/comments/{link}/some_title/h0{number:x}/", "retrieved_on": 1_627_159_519,
        "score": rng.randint(-5, 200), "score_hidden": False, "send_replies": True, "stickied": False,
        "subreddit": community, "subreddit_id": "t5_2qh1i", "subreddit_name_prefixed": f"r/{community}",
        "subreddit_type": "public", "top_awarded_type": None, "total_awards_received": 0, "treatment_tags": [],
        "unrepliable_reason": None,
    }  # fmt: skip


def submission_2019(rng: Random, number: int) -> dict:
    """One submission of 2019: 80 keys, in one of four a preview with its resolutions."""
    name, community, image = f"db{number:x}", f"sub{rng.randint(0, 300)}", rng.random() < 0.25
    path = f"/r/{community}/comments/{name}/some_words_of_the_title/"
    url = f"https://i.redd.it/{rng.randint(0, 16**12):x}.jpg" if image else f"https://www.reddit.com{path}"
    record = {
        "all_awardings": [], "allow_live_comments": False, "archived": True, "author": _author(rng),
        "author_created_utc": 1_500_000_000 + rng.randint(0, 10**8), "author_flair_background_color": None,
        "author_flair_css_class": None, "author_flair_richtext": [], "author_flair_template_id": None,
        "author_flair_text": None, "author_flair_text_color": None, "author_flair_type": "text",
        "author_fullname": f"t2_{rng.randint(0, 10**8):x}", "author_patreon_flair": False, "author_premium": False,
        "awarders": [], "can_gild": True, "can_mod_post": False, "category": None, "content_categories": None,
        "contest_mode": False, "created_utc": 1_569_888_000 + number, "discussion_type": None, "distinguished": None,
        "domain": "i.redd.it" if image else f"self.{community}", "edited": False, "gilded": 0, "gildings": {},
        "hidden": False, "id": name, "is_crosspostable": False, "is_meta": False, "is_original_content": False,
        "is_reddit_media_domain": image, "is_robot_indexable": False, "is_self": not image, "is_video": False,
        "link_flair_background_color": "", "link_flair_css_class": None, "link_flair_richtext": [],
        "link_flair_text": None, "link_flair_text_color": "dark", "link_flair_type": "text", "locked": False,
        "media": None, "media_embed": {}, "media_only": False, "no_follow": True, "num_comments": rng.randint(0, 50),
        "num_crossposts": 0, "over_18": False, "parent_whitelist_status": "all_ads", "permalink": path,
        "pinned": False,
    }  # fmt: skip
    if image:
        record |= {"post_hint": "image", "preview": {"enabled": True, "images": [_preview(rng)]}}
    return record | {
        "pwls": 6, "quarantine": False, "removal_reason": None, "removed_by": None, "removed_by_category": None,
        "retrieved_on": 1_586_200_544, "score": rng.randint(0, 500), "secure_media": None, "secure_media_embed": {},
        "selftext": "" if image else "[removed]" if rng.random() < 0.3 else _text(rng, 20, 200),
        "send_replies": True, "spoiler": False, "stickied": False, "subreddit": community, "subreddit_id": "t5_2rxrw",
        "subreddit_name_prefixed": f"r/{community}", "subreddit_subscribers": 1_380_540, "subreddit_type": "public",
        "suggested_sort": None, "thumbnail": "default", "thumbnail_height": None, "thumbnail_width": None,
        "title": _text(rng, 3, 15), "total_awards_received": 0, "treatment_tags": [], "url": url,
        "whitelist_status": "all_ads", "wls": 6,
    }  # fmt: skip


def _preview(rng: Random) -> dict:
    """The preview of an image: its source and five resolutions, each with its address."""
    url = f"https://preview.redd.it/{rng.randint(0, 16**12):x}.jpg?auto=webp&amp;s={rng.randint(0, 16**40):040x}"
    sizes = [
        {"height": width * 3 // 4, "url": f"{url}&amp;width={width}", "width": width}
        for width in (108, 216, 320, 640, 960, 1080)
    ]
    return {"id": f"{rng.randint(0, 16**32):x}", "resolutions": sizes[:-1], "source": sizes[-1], "variants": {}}


ERAS: dict[str, Callable[[Random, int], dict]] = {
    "comments-2018": comment_2018,
    "comments-2021": comment_2021,
    "submissions-2019": submission_2019,
}


def write_dump(path: Path, era: str, rows: int, window_log: int) -> int:
    """Write a .zst dump of `rows` records, the same for the same arguments; returns its size as NDJSON."""
    rng, size, record = Random(0), 0, ERAS[era]
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(path.open("wb")) as out:
        for number in range(rows):
            line = json.dumps(record(rng, number), separators=(",", ":")).replace("/", "\\/").encode() + b"\n"
            size += len(line)
            out.write(line)
    return size

# ruff: noqa: SIM905 (lists of words)
"""The given name in a Chinese or Korean name without spaces, by which its bearer is called: 小明 of 王小明 (C9).

A name of three characters with a frequent surname of one, or of four with one of two. Two characters are easily part
of other words: a given name that is itself a frequent word is none here, and where a frequent word runs over an edge
of it (天明 in 明天明白) it is not meant. A Korean given name is a word there, with or without a particle.
"""

import re
from functools import cache
from importlib import resources

from user_embeddings_dagster.privacy.normalise import fold_name

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]{3,4}")
_HANGUL = re.compile("[\uac00-\ud7a3]{3}")
_HAN_SURNAMES = frozenset(  # of nine in ten Chinese, simplified and traditional
    "王李张張刘劉陈陳杨楊黄黃赵趙吴吳周徐孙孫马馬朱胡郭何高林罗羅郑鄭梁谢謝宋唐许許韩韓冯馮邓鄧曹彭曾肖蕭萧田董袁潘于"
    "蒋蔣蔡余杜叶葉程苏蘇魏吕呂丁任沈姚卢盧姜崔钟鍾鐘谭譚陆陸汪范石廖贾賈夏韦韋付傅方白邹鄒孟熊秦邱江尹薛闫阎閻段雷侯龙龍"
    "史陶黎贺賀顾顧毛郝龚龔邵万萬钱錢严嚴覃武戴莫孔向汤湯温溫康施文牛樊葛邢安齐齊易乔喬伍庞龐颜顏倪庄莊聂聶章鲁魯岳翟殷詹"
    "申欧歐耿关關兰蘭焦俞左柳甘祝包宁寧尚符舒阮柯纪紀梅童凌毕畢单單季裴霍涂成苗谷盛曲翁冉骆駱蓝藍路游辛靳管柴蒙鲍鮑华華喻祁"
)
_TWO = frozenset(
    "欧阳 歐陽 司马 司馬 上官 诸葛 諸葛 夏侯 皇甫 尉迟 尉遲 慕容 司徒 令狐 独孤 獨孤 南宫 南宮 端木 东方 東方".split()
)
_HANGUL_SURNAMES = frozenset(
    "김이박최정강조윤장임한오서신권황안송류유홍전고문양손배백허남심노하곽성차주우구민나진지엄원천방공현함변염여추도소석"
)
# What follows a Korean given name in one word: vocatives, particles, titles.
_PARTICLES = frozenset(
    (
        "아 야 이 가 은 는 을 를 의 도 만 와 과 랑 로 에 네 씨 님 군 양 형 이야 이가 이는 이를 이의 이도 이만 "
        "이랑 이와 이네 이한테 이에게 한테 에게 하고 부터 까지 처럼 보다 씨가 씨는 씨를 씨도 씨의 씨랑 씨한테 "
        "님이 님은 님을 님도 님의 님께 형이 형은 형아 누나 오빠 언니 선배 이다 입니다 예요 이에요"
    ).split()
)
_MOST_PARTICLES = max(map(len, _PARTICLES))


@cache
def _words() -> frozenset[str]:
    """1,200 frequent Chinese words of two characters, simplified and traditional; compiled by hand."""
    return frozenset((resources.files(__package__ or __name__) / "han_words.txt").read_text("utf-8").split())


def given_part(name: str) -> str | None:
    """The folded given name of two characters in display `name`; None where it has none that can be told."""
    folded = fold_name(name)
    if _HANGUL.fullmatch(folded):
        return folded[1:] if folded[0] in _HANGUL_SURNAMES else None
    if not _HAN.fullmatch(folded):
        return None
    known = folded[:2] in _TWO if len(folded) == 4 else folded[0] in _HAN_SURNAMES
    return folded[-2:] if known and folded[-2:] not in _words() else None


def is_meant(folded: str, start: int, end: int) -> bool:
    """Whether the given name at `start` to `end` of `folded` text is a word there, not a piece of others."""
    if _is_hangul(folded[start]):
        rest = folded[end : end + _MOST_PARTICLES + 1]
        run = rest[: next((place for place, c in enumerate(rest) if not _is_hangul(c)), len(rest))]
        return not (start and _is_hangul(folded[start - 1])) and (not run or run in _PARTICLES)
    return not {folded[max(0, start - 1) : start + 1], folded[end - 1 : end + 1]} & _words()


def _is_hangul(character: str) -> bool:
    return "\uac00" <= character <= "\ud7a3"

"""English phrases with which people say what they intend, hold, are and know.

Expressions are written for both Python's and Polars' engines.
"""

import re

_VERY = r"(?:(?:really|just|also|still|always|never|personally|honestly|actually|kinda|do|don't|don’t|do not) )*"
# The first kind whose cue stands in a sentence is its kind.
CUES = {
    "intent": (
        rf"\bi {_VERY}(?:want|wanna|plan|intend|hope|need|wish|aim)\b|\bi(?:['’]ll| will|['’]d like| would like)\b"
        r"|\bi(?:['’]m| am) (?:going to|gonna|planning|about to|trying to|looking (?:for|to)|thinking (?:of|about))"
        r"|\b(?:can|could|would) (?:you|someone|anyone|anybody)\b|\bhow (?:do|can|should) i\b|^(?:please|help me)\b"
    ),
    "opinion": (
        rf"\bi {_VERY}(?:think|believe|guess|feel|love|like|hate|prefer|enjoy|dislike|agree|disagree|doubt|suspect"
        r"|find|can['’]?t stand)\b|\bim(?:h)?o\b|\bin my (?:humble )?opinion\b|\bmy favou?rite\b|^personally\b"
    ),
    "attribute": (
        r"\bi(?:['’]m| am) (?:a|an|the|from|in|at|on|based|living|married|single|\d+)\b|\bas an? \w+,? i\b"
        rf"|\bi {_VERY}(?:live|work|own|speak|study|studied|use|used to|moved|grew up|was born|drive|ride|play"
        r"|ha(?:ve|d) (?:an?|the|my|no|some|one|two|three|been|\d+))\b"
        r"|\bmy (?:wife|husband|partner|girlfriend|boyfriend|son|daughter|kids?|mother|mom|father|dad|brother|sister"
        r"|dog|cat|job|boss|company|team|house|flat|apartment|car|laptop|phone)\b"
    ),
    "knowledge": (
        rf"\bi {_VERY}(?:know|learned|learnt|read|found|discovered|noticed|figured out|remember|tested|tried)\b"
        r"|\bthe (?:reason|trick|fix|problem|issue|difference) (?:is|was)\b|\b(?:works by|means that|is caused by"
        r"|is called|turns out|because)\b|\byou (?:need to|have to|can|should)\b|^(?:til|fyi)\b"
    ),
}
_COMPILED = {kind: re.compile(f"(?i){cue}") for kind, cue in CUES.items()}
MIN_WORDS = 3


def kind_of(sentence: str) -> str | None:
    """knowledge, opinion, attribute or intent, if a cue for it stands in `sentence`; else None."""
    if len(sentence.split()) < MIN_WORDS:
        return None
    return next((kind for kind, cue in _COMPILED.items() if cue.search(sentence)), None)

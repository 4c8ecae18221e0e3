"""Where in a sentence its result stands, in answers that never say "the answer is".

"If she buys 4 boxes at $5 each, she pays 4 × 5 = $20 for 2 weeks": not the condition, not what is counted beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from suites.readings.number_words import HAN_NUMBER, han_value
from suites.readings.numerals import Found, find_numbers, find_words, plain_form

SENTENCE_ENDS = re.compile(
    r"(?<!\bi\.e\.)(?<!\be\.g\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bMrs\.)(?<=[.;!?])(?=\s|$)|(?<=[。！？；])"
)
_ASKS = re.compile(r"[?？]\s*$|^\W*(?:please\s+)?(?:let\s+me\s+know|feel\s+free)\b", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"\b(?:so(?!\s+(?:far|much|many|long|as|on|called)\b)|therefore|thus|hence|then|which\s+(?:means|gives|leaves|makes|implies|yields)|which\s+is(?=\s+\W{0,3}\d[\d,.]*\W*$)|that\s+means|"
    r"rounds\s+(?:(?:up|down|off)\s+)?to(?!\s+the\b)|meaning|(?<!after\s)(?<!before\s)(?<!by\s)(?<!of\s)(?:leaving|giving)|for\s+a\s+total\s+of)\b"
    r"|したがって|よって|ゆえに|つまり|(?:ので|から|ため)、|所以|因此|于是|那么",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\W*(?:and|but|now|finally|next)?,?\s*"
    r"\b(?:if|since|because|as|when|while|after|before|given|although|though|once|with|without|of|out\s+of|in|on|at|by|"
    r"for|from|during|(?:every|each)\s+(?:day|week|month|year|hour|minute|time)|among|per|to)\b[^,]{0,200},\s"
    r"|[^、，。]{0,60}(?:場合|とき|後|なら|たら|れば)、"
    r"|(?:如果|因为|因為|由于|由於|既然|当|若)[^，]{0,80}，",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",?\s*\b(?:since|because|given\s+that|i\.e\.|that\s+is,)|[，,、]?(?:即|因为|因為|也就是|なぜなら)", re.IGNORECASE
)
_CLAUSE = re.compile(
    r",?\s*\b(?:(?<!at\s)(?<!in\s)(?<!for\s)which|who|where|whose|if|when|while|after|before|until|assuming|instead\s+of|rather\s+than|compared|out\s+of|not)\b"
    r"|ではなく|而不是|[，、]?其中|,\s+or\s+(?=\d[\d.]*\s?%)",
    re.IGNORECASE,
)
_TO_DO = r"(?<!need)(?<!needs)(?<!needed)(?<!have)(?<!has)(?<!had)(?<!able)(?<!going)(?<!wants)(?<!want)\s+to\s+\w+"
_OF = (
    r"(?<!total)(?<!sum)(?<!profit)(?<!cost)(?<!amount)(?<!average)(?<!rest)(?<!difference)(?<!loss)(?<!length)"
    r"(?<!number)(?<!price)(?<!age)(?<!balance)(?<!remainder)(?<!speed)(?<!rate)(?<!weight)(?<!value)(?<!result)\s+of"
)
_BESIDE = re.compile(
    rf"(?:{_TO_DO}|{_OF}|\b(?:for|in|on|than|from|by|at|per|with|among|within|over|every|each|between|across|these|those|sur|pour|por|para|für|по|за)|[A-Za-z]/"
    r"|\b(?:another|week|day|month|year|step|room|page|grade|level|number|no\.))"
    r"(?:\s+(?:the|les|los|las|die|these|those|all|his|her|their|its|our|about|only|just|other|first|last|next|remaining))*[\s$€£¥#]*$"
    r"|(?:每|第|购买|購買|走完|买|買)\s*$",
    re.IGNORECASE,
)
"""What a number stands behind that is no result: for 4 children, to make 16 muffins, at $20 a day."""
_GIVEN = re.compile(r"\b(?:the|these|those)\s+(?:other\s+|first\s+|remaining\s+)?[$€£¥]?$", re.IGNORECASE)
"""Known from the question: to cover the 30 miles."""
_VERB = re.compile(
    r"(?:\b|['’])(?:ll\s+be|(?:(?<=\b[Ii]t['’])|(?<=hat['’])|(?<=here['’])|(?<=he['’])|(?<=tal['’])|(?<=wer['’]))s|is|are|was|were|be|been|being|costs?|gives?|gave|makes?|made|equals?|gets?|got|has|have|had|earn(?:s|ed)?|need(?:s|ed)?|"
    r"sp(?:ends?|ent)|pays?|paid|t(?:akes?|ook)|c(?:omes?|ame)\s+(?:out\s+)?to|total(?:s|ed)?|leaves?|left\s+with|sold|sells?|"
    r"saved?|saves|weigh(?:s|ed)?|receive[sd]?|bought|buys|reads?|remains?|requires?|contains?|holds?|will\s+\w+|would\s+\w+|must\s+\w+|can\s+\w+)"
    r"(?:\s+(?:him|her|them|us|me|you|it|[A-Z][a-z]+))?\s*(?:(?:about|exactly|only|just|up)\s+)?"
    r"(?:(?:us\s+)?a\s+total\s+of\s+|to\s+\w+\s+)?[\s$€£¥]*$"
    r"|(?:需要花费|需要支付|需要|花费了?|花了|支付|赚了?|得到|分到|剩下了?|还剩下?|有|等于)\s*$",
)


_UNKNOWN = re.compile(
    r"\b(?:i\s+(?:do\s+not|don['’]t|cannot|can['’]t)\s+(?:know|say|tell|determine|answer)\b"
    r"|impossible\s+to\s+(?:say|tell|determine|know|answer)|(?:cannot|can['’]t|can\s+not)\s+be\s+(?:determined|answered|known)"
    r"|not\s+enough\s+(?:information|data))(?!.*[,;.—–-]\s*(?:but|so)\b)|(?:分|わ)かりません|不知道|无法(?:确定|回答|得知)|無法(?:確定|回答|得知)",
    re.IGNORECASE,
)
_TOTAL = re.compile(r"(?:一共|总共|總共|共|总计|總計|合計で?|全部で|合わせて)(?:是|有|为|為|は)?[\s$¥]*$")
_PERSONS = re.compile(r"\s?[人名位]")
_HAN_STATED = re.compile(r"(?:^|是|为|為|共|有|等于|等於|需要|要|得|剩|花|は|が|で|、|，)\s*$")
_HAN_ENDS = re.compile(r"[^\W\d]{0,4}?(?:です|である|だ|になります|となります)?[\s*。.!！]*$")


def sentences(line: str) -> Iterator[str]:
    """The sentences of a line from its last to its first; questions and offers state nothing and are left out."""
    for sentence in reversed(SENTENCE_ENDS.split(line)):
        if not _ASKS.search(sentence):
            yield sentence


def conclusion(sentence: str) -> str:
    """The part of a `normalised` sentence that holds its result, without conditions before it and reasons behind it."""
    for word in reversed(list(_CONCLUDES.finditer(sentence))):
        if _holds_number(sentence[word.end() :]):
            sentence = sentence[word.end() :]
            break
    while (before := _CONDITION.match(sentence)) and _holds_number(sentence[before.end() :]):
        sentence = sentence[before.end() :]
    return _cut(_REASON, sentence)


def result(said: str, numbers: list[Found]) -> Found:
    """Of the numbers of a conclusion the one that it comes to: behind a verb, else the last that is not beside it."""
    main = len(_cut(_CLAUSE, said))
    candidates = [number for number in numbers if number.start < main] or numbers
    candidates = [n for n in candidates if not _GIVEN.search(said, max(0, n.start - 20), n.start)] or candidates
    candidates = [n for n in candidates if not _BESIDE.search(said, max(0, n.start - 60), n.start)] or candidates
    totals = [n for n in candidates if _TOTAL.search(said, max(0, n.start - 20), n.start)]
    if totals and not _PERSONS.match(said, totals[-1].end):
        return totals[-1]
    after_verbs = [n for n in candidates if _VERB.search(said, max(0, n.start - 60), n.start)]
    return (after_verbs or candidates)[-1]


def knows_nothing(sentence: str) -> bool:
    """Whether a sentence says that there is no answer to give."""
    return bool(_UNKNOWN.search(sentence))


def number_in_words(sentence: str) -> str:
    """The number that a sentence without digits states in words, alone or behind a verb; "" for none."""
    for number in find_words(sentence):
        if not sentence[number.end - 1].isascii():  # Han: below
            continue
        alone = not (sentence[: number.start] + sentence[number.end :]).strip(" *_.!$")
        stated = _VERB.search(sentence, max(0, number.start - 60), number.start)
        counted = sentence[number.end :].lstrip().startswith("of ")
        if (alone or (stated and not counted)) and number.value is not None:
            return plain_form(number.value)
    han = [found for found in HAN_NUMBER.finditer(sentence) if len(found[0]) > 1]
    if len(han) == 1 and (value := han_value(han[0][0])) is not None:
        return plain_form(value)
    for found in HAN_NUMBER.finditer(sentence):
        before, after = sentence[max(0, found.start() - 60) : found.start()], sentence[found.end() :]
        if _HAN_STATED.search(before) and _HAN_ENDS.fullmatch(after) and (value := han_value(found[0])) is not None:
            return plain_form(value)
    return ""


def _cut(pattern: re.Pattern[str], said: str) -> str:
    """The text before the first match that a number stands before."""
    for found in pattern.finditer(said):
        if _holds_number(said[: found.start()]):
            return said[: found.start()]
    return said


def _holds_number(text: str) -> bool:
    return next(find_numbers(text), None) is not None

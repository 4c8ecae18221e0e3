"""The number that an answer ends with: that of its final statement, not one that stands beside it.

Without a final statement the last number of the last sentence that has one is the answer.
"""

from __future__ import annotations

import re
from itertools import pairwise

from suites.readings.characters import normalised
from suites.readings.last_sentences import SENTENCE_ENDS, conclusion, knows_nothing, number_in_words, result, sentences
from suites.readings.number_words import with_fractions
from suites.readings.numerals import Found, find_numbers, find_words, one_number, plain_form
from suites.readings.statements import LONGEST, TAIL, Stated, boxes, doubted, own_answer, statements, taken_back

_BRACKETS = re.compile(r"(?<!\\)\([^()\n]{0,200}\)|（[^（）\n]{0,200}）|\[[^\[\]\n]{0,200}\]")
_BESIDE = re.compile(
    r",?\s*\b(?:since|because|as(?!\s+(?:\w+\s+)?follows)|given|which|where|i\.e\.|that\s+is|meaning|so|after|before|if|when|while|"
    r"assuming|with|out\s+of|of\s+which|instead\s+of|rather\s+than|but|per|each|an?\s+(?:day|week|month|year|hour)|not|and\s+(?:she|he|they|it|there|we|you))\b"
    r"|\s[-—]\s(?=[A-Za-z]{2})|\b(?:denn|weil|parce\s+que|car|porque|pues|perché|perche|et\s+non|y\s+no|e\s+non|und\s+nicht)\b"
    r"|[，,、](?:即|因为|因為|也就是|其中|每|而不是)|因为|因為|なぜなら|ではなく|而不是",
    re.IGNORECASE,
)
TWO = Found(0, 0, None, True, False)
"""Two numbers of which neither is the answer."""
_DENIED = re.compile(
    r"\bnot\b[^.;\n]{1,60}?(?:\bbut\b|,\s*(?:it\s+is|it's)\b)|\b(?:nicht|kein)\b[^.;\n]{1,60}?\bsondern\b|\bno\b[^.;\n]{1,60}?\bsino\b"
    r"|\b(?:non|pas)\b[^.;\n]{1,60}?\b(?:mais|bensì|ma)\b|[^.;\n]{1,40}?[-–—.,]\s*(?:no|wait|actually|sorry)\b[\s,]*(?:no|wait)?\b,?"
    r"|[^。\n]{1,20}?[…、，.。]{1,3}(?:いや|いえ|不对|不對|等等)[、，,]?"
    r"|[^、，。\n]{1,40}?(?:(?:ではなく|じゃなく)て?|と思(?:われ|い|え|っ)(?:ました|た)が、)",
    re.IGNORECASE,
)
_EQUALS = re.compile(r"\s{0,3}(?:=|≈|≒|\\approx|⇒)\s{0,3}")
_FILLER = re.compile(
    r"(?:[\s*_$\\:：、,，\"'“”「」`(（~≈|-]|either|between|about|approximately|approx\.?|around|exactly|precisely|only|just|simply|de|equal\s+to|"
    r"a\s+total\s+of|total\s+of|therefore|thus|then|now|indeed|also|約|约|大约|大約|合計で?|合わせて|全部で|全部|共|一共|总共|總共|"
    r"总计|總計|ちょうど|正好|[A-Za-z]\s*=|(?:US|USD|EUR|Rs\.?)(?=\s?[$\d]))*$",
    re.IGNORECASE,
)
_TOTAL = re.compile(r"(?:一共|总共|總共|(?<![，,、\s])共|总计|總計|合計で?|全部で|合わせて)(?:是|有|は)?\s*$")
_PART = re.compile(r"\s?[^\d\s、，,。]{0,6}?(?:で(?![すあ、，])|ずつ|あたり|当たり|につき|に対して|のうち|から|より)")
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|costs?|gives?|makes?|equals?|gets?|has|have|had|earns?|needs?|spends?|pays?|takes?|comes?\s+to|totals?|"
    r"leaves?|sold|sells|saves?|weighs?|receives?|contains?|holds?|will\s+\w+)\s*(?:about|exactly|only)?[\s$€£¥]*$",
    re.IGNORECASE,
)
_OR = re.compile(
    r"\s?[A-Za-z個本人元円つ]{0,12}\s?(?:\bor\b|\band\b|/|または|か|或者?|或|和|と|\bto\b|~|～|〜|到|至)\s?[$€£¥]?\s?$"
)
_EITHER = re.compile(r"\s?[a-z個本人元円つ]{0,12}\s?(?:\bor\b|または|或者?)\s?[$€£¥]?\s?")
"""7 or 8 apples."""
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*|__([^_\n]{1,80})__")
_LINE_OF_HEADING = re.compile(r"[ \t]*#{1,6}(?!#)\s|[ \t]*(?:step|ステップ|步骤)\s*\d+\W*$", re.IGNORECASE)
_NUMBERING = re.compile(
    r"^[ \t>*_]{0,6}(?:\(?\d{1,2}[.):]|step\s*\d{1,2}\s*[.:)]"
    r"|第?[一二三四五六七八九十]+步[:：]?)(?=[\s*_])[ \t*_]*(?=\S)",
    re.IGNORECASE,
)
_IT_IS = re.compile(
    r"\b(?:it|that|this|the\s+\w+)(?:\s+is|['’]s|\s+should\s+be|\s+must\s+be)\b"
    r"|正しくは|应该是|應該是|\bi\s+(?:now\s+)?(?:get|find)\b"
    r"|\b(?:no|actually|rather|i\s+mean|sorry|so|thus|therefore|hence)[\s,:—–-]{1,4}(?=[$€£]?\d[\d,.]*(?:\s+[a-z]+){0,2}\s*(?:[.!]|\n|\Z))",
    re.IGNORECASE,
)
_RESULT_IN_HEADING = re.compile(r"[=:：]\s*[*$\\(\s]*[-+−–]?[$€£¥]?\s?[\d.０-９][^\n=:：]{0,40}$")
_NOT_THAT = re.compile(
    r"\b(?:(?:is|was|are|were)(?:\s+not|n['’]t)|can(?:no|['’])t\s+be)\s+[$€£]?\d[\d,]*(?:\.\d+)?%?", re.IGNORECASE
)
_ROUNDED = re.compile(
    r".{1,120}?\brounds\s+(?:(?:up|down|off)\s+)?to\s+(?=[$€£]?\d)(?!\d+\s+(?:decimal|significant|place|digit))",
    re.IGNORECASE,
)
"""17.96, which rounds to 18."""
_WHICH_IS = re.compile(
    r"\A(?![$€£]?\d[\d,.]*\s*(?:[a-z]+\s*)?,).{1,120}?,\s(?:which|that)\s+(?:is|equals|makes|gives)\s+(?=[$€£]?\d[\d,.]*\W*\Z)",
    re.IGNORECASE,
)
"""Half of 36, which is 18."""
_COMPOUND = re.compile(
    r".{0,80}?\d\s?(?:h|hours?|hrs?|min(?:ute)?s?|days?|weeks?|months?|years?|feet|foot|ft|yards?|dozens?|pounds?|lbs?)\s(?:and\s)?\d+(?:\s[a-z]+)?"
    r",?\s(?:that\s+is|which\s+is|i\.e\.|or),?\s(?=\d[\d,.]*(?:\s[a-z]+)?\W*\Z)"
)
"""1 hour 30, that is, 90 minutes."""
_AMOUNT = re.compile(
    r"(?:([$€£])\s?(\d[\d,]*)|(\d[\d,]*)\s?(?:dollars?|euros?|pounds?|ドル|ユーロ|美元|欧元))"
    r",?\s?(?:and\s)?(\d{1,2})\s?(?:cents?\b|pence\b|セント|美分)",
    re.IGNORECASE,
)
_ASIDE_ALONE = re.compile(r"\s*(?:(?<!\\)\([^()\n]{0,200}\)|（[^（）\n]{0,200}）)[\s.。]*")
_POINTS_GROUP = re.compile(r"\b(?:antwort|ergebnis|lösung|antwoord|respuesta|resposta|risposta)\b", re.IGNORECASE)
_GROUP = re.compile(r"(?<![\d.,])([1-9]\d{0,2})\.(\d\d0)(?!\d|[.,]\d)")
"""In German, Dutch, Spanish, Portuguese and Italian 18.000 are eighteen thousand."""
_CHECK = re.compile(
    r"\W*(?:check|verification|verify|検算|確認|验算|驗算|检验)\W(?!.*\b(?:but|so|wrong|not|should)\b).*", re.IGNORECASE
)
"""Check: 2 × 36 = 72."""
_CUT = re.compile(r"(?:\d\s{0,3}[-+×/÷=]|[=(]|\\boxed\s{0,3}\{[^{}\n]{0,60})\s{0,20}\Z")
_WORKED_OUT = re.compile(r"\d\s?[-+−×*/÷x]\s?\$?\d[^\n=]{0,60}=")


def final_number(text: str) -> str:
    """The number that an answer ends with, in plain form ("1234.5", "-7", "18/7"); "" when there is none."""
    text = own_answer(text, lambda before: bool(last_number(before)))[-TAIL:]
    if _POINTS_GROUP.search(text):
        text = _GROUP.sub(r"\1\2", text)
    stated = sorted([*statements(text), *boxes(text)], reverse=True)
    for statement in stated:
        found, rest = number_of(statement.said), text[statement.end :]
        if found == "" or _begins_the_way(text, statement, rest):
            continue
        if taken_back(text, statement):
            return last_number(rest)
        return (doubted(text, statement) and _instead(rest)) or found or ""
    return last_number(text)


def _begins_the_way(text: str, statement: Stated, rest: str) -> bool:
    """Whether "Answer:" stands before all of the way: "Answer: He has 5 toys. … 7 + 2 = 9"."""
    if text[statement.start - 1 : statement.start] not in (":", "：") or not _WORKED_OUT.search(rest):
        return False
    said = normalised(statement.said)
    first = next(find_numbers(said), None)
    return first is not None and first.simple and not _FILLER.match(said[: first.start])


def _instead(rest: str) -> str:
    """The number that is said in the place of one before: "No, it is 20"."""
    found = _IT_IS.search(rest[:LONGEST])
    return (
        number_of(SENTENCE_ENDS.split(rest[found.end() : found.end() + LONGEST], maxsplit=1)[0]) or "" if found else ""
    )


def number_of(said: str) -> str | None:
    """The number that a statement states, in plain form; "" when it has none, None when it has two.

    What is no one number (18x, 18:5) stays as it is written.
    """
    plain = _DENIED.sub(" ", _one_amount(with_fractions(normalised(said))))
    plain = _COMPOUND.sub("", _WHICH_IS.sub("", _ROUNDED.sub("", plain)))
    if not _BRACKETS.fullmatch(plain.strip()):
        plain = _BRACKETS.sub(_aside, plain)
    plain = _without_beside(plain)
    parts = _EQUALS.split(plain)
    if len(parts) > 1:
        return _of_equation(parts)
    return _text(_stated(plain), plain)


def _stated(said: str) -> Found | None:
    """The number of a clause: the one it begins with, else the one after its verb, else its last."""
    numbers = list(find_numbers(said)) or list(find_words(said))
    numbers = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or not _PART.match(said, n.end)]
    if not numbers:
        return None
    totals = [number for number in numbers if _TOTAL.search(said, 0, number.start)]
    if totals:
        return totals[-1]
    after_verbs = _after_verbs(said, numbers)
    if after_verbs and after_verbs[-1] is not numbers[0]:
        return after_verbs[-1]
    if after_verbs or _FILLER.match(said[: numbers[0].start]):
        first = numbers[0]
        if len(numbers) > 1 and _OR.fullmatch(said[first.end : numbers[1].start]) and numbers[1].value != first.value:
            return TWO
        return first
    return result(said, numbers)


def _after_verbs(said: str, numbers: list[Found]) -> list[Found]:
    """Numbers that stand directly after a verb: 6 pens cost 18."""
    return [number for number in numbers if _VERB.search(said, max(0, number.start - 40), number.start)]


def _of_equation(parts: list[str]) -> str | None:
    """Of an equation the side that is one number: the last one that is (18 = 6 × 3; 6 × 3 = 18; x = 18)."""
    sides = [list(find_numbers(part)) for part in parts]
    last = sides[-1]
    if len(last) > 1 and last[0].simple and _FILLER.match(parts[-1][: last[0].start]):  # = 5 hours to read 120 pages
        return _text(_stated(parts[-1]), parts[-1])
    alone = [found[0] for found in sides if found and len(found) == 1 and found[0].simple]
    if alone:
        if last and last[0].simple:
            return _text(_stated(parts[-1]), parts[-1])
        return _text(alone[-1])
    return _text(next((found[-1] for found in reversed(sides) if found), None))


def last_number(text: str) -> str:
    """The number of the last sentence that has one; headings count only where nothing else has one.

    A text that ends within a calculation or a box was cut there, before anything was answered.
    """
    if _CUT.search(text):
        return ""
    lines = text.splitlines()
    last = next((said for line in reversed(lines) for said in sentences(line) if said.strip()), "")
    if knows_nothing(last):
        return ""
    for headings, asides in ((False, False), (False, True), (True, True)):
        for line in reversed(lines):
            if bool(_LINE_OF_HEADING.match(line)) != headings or (headings and not _RESULT_IN_HEADING.search(line)):
                continue
            if not asides and _CHECK.fullmatch(line):
                continue
            for sentence in sentences(_NUMBERING.sub("", line)):
                if not asides and _ASIDE_ALONE.fullmatch(sentence) and not one_number(sentence.strip(" .。()（）")):
                    continue
                if found := _of_sentence(sentence[-2 * LONGEST :]):
                    return found
    return number_in_words(normalised(lines[-1][-LONGEST:])) if lines else ""


def _of_sentence(sentence: str) -> str:
    """The number that a sentence comes to; what stands in brackets counts only where nothing else does."""
    if (bold := list(_BOLD.finditer(sentence))) and (found := number_of(bold[-1][1] or bold[-1][2])):
        return found
    plain = _NOT_THAT.sub(" ", _one_amount(with_fractions(normalised(sentence))))
    plain = _COMPOUND.sub("", plain)
    for said in (conclusion(_BRACKETS.sub(_aside, plain)), plain):
        parts = _EQUALS.split(said)
        if len(parts) > 1 and (found := _of_equation(parts)):
            return found
        if numbers := list(find_numbers(said)):
            stated = result(said, numbers)
            either = any(
                stated in pair and _EITHER.fullmatch(said[pair[0].end : pair[1].start]) for pair in pairwise(numbers)
            )
            return "" if either else _text(stated) or ""
    return ""


def _one_amount(said: str) -> str:
    """The text with 18 dollars and 50 cents as $18.50."""
    return _AMOUNT.sub(lambda found: f"{found[1] or '$'}{found[2] or found[3]}.{found[4]:0>2}", said)


def _aside(found: re.Match[str]) -> str:
    """Brackets are left out, unless they are arithmetic: something is done with them."""
    before, after = found.string[: found.start()].rstrip()[-1:], found.string[found.end() :].lstrip()[:1]
    arithmetic = before in set("+-×*/÷·^({") - {""} or after in set("+-×*/÷·^)}") - {""}
    whole = not found.string[: found.start()].strip(" *_$") and not after
    return found[0] if arithmetic or whole else " "


def _without_beside(said: str) -> str:
    """The clause without what explains it, where a number stands before that."""
    for beside in _BESIDE.finditer(said):
        before = said[: beside.start()]
        if next(find_numbers(before), None):
            return before
    return said


def _text(found: Found | None, said: str = "") -> str | None:
    if found is None:
        return ""
    if found.value is not None:
        return plain_form(found.value)
    return said[found.start : found.end] or None

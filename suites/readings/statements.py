r"""Final statements: where a text says what its answer is, and what it says there. Text alone, nothing is worked out.

"The answer is 18 dollars, since 36 / 2 = 18" states `18 dollars, since 36 / 2 = 18`; the readers of numbers, letters
and expressions take from it the thing stated. Known are \boxed{}, "the answer is", `#### 18`, <answer>, headings
("### Answer" with the next line), 答えは, 答案是, 故选 and their like. What is looked at is bounded: model output may
be of any size.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

TAIL = 20_000
"""So many last characters are looked at: a final answer stands at the end."""
LONGEST = 500
"""No final answer is longer, in characters."""
STATEMENTS = 50
"""So many last statements of each form are looked at."""
BARE = 12
"""Characters that hold an answer and nothing else: "D", **18**."""


class Stated(NamedTuple):
    """One final statement."""

    start: int
    said: str
    end: int


_BRACES = re.compile(r"(?P<box>\\{1,4}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s{0,3}(\d{1,30}|[A-Za-z])(?![\w{.,]*[\w{])")
_BETWEEN_BOXES = re.compile(
    r"[\s,;$、，]*(?:\\quad|\\text\{\s*and\s*\}|and|or|和" r"|と)?[\s,;$]*(?:[A-Za-z](?:_\{?\w\}?)?\s*=\s*)?"
)
_AIM = r"(?:\s+(?:to|for|of|in)\s+(?:the|this|your|our|part|question)\b[^.,:=\n]{0,40}?)?"
_ASIDE = r"(?:\s*\([^()\n]{0,40}\)|\s*,[^,.\n]{1,60},)?"
_IS = (
    r"(?:is|was|are|equals|comes\s+(?:out\s+)?to|(?:would|should|must|will|might|may|could"
    r"|has\s+to)\s+be)\b(?:\s+(?:therefore|thus|then|hence|(?:most\s+)?(?:probably|likely)|clearly|definitely|certainly|obviously"
    r"|evidently|simply))?"
)
_ANSWER = r"\b(?:answers?|ans)\b"
_FOREIGN = (  # of German, Dutch, French, Spanish, Portuguese, Italian, Russian, Vietnamese; Korean; Thai to Arabic
    r"\b(?:antwort|ergebnis|lösung|antwoord|réponse|respuesta|resposta|risposta|ответ|đáp\s+án)\b(?:\s+(?:finale?|correcta|correta|corretta|correcte))?"
    r"[\s*_]{0,4}(?:(?:is(?:t)?|lautet|beträgt|est|es|é|è|là)\b|[:：=]|[—–-]\s)"
    r"|(?:정답|답)(?:은|[:：])"
    r"|คำตอบ(?:ที่ถูกต้อง)?\s?(?:คือ|[:：])|উত্তর(?:টি)?\s?(?:হলো?|হচ্ছে|[:：])|उत्तर\s?(?:है|[:：])|(?:الإجابة|الجواب)(?:\s+الصحيحة)?\s?(?:هي|هو|[:：])"
)
_HAN_ANSWER = r"(?:答え|答案|解答|正解|正答|回答|答|選択肢|选项|選項)"
_HAN_IS = (
    r"(?:としては|は|が|も|就是|便是|即是|即为|即為|应该是|應該是|应该为|應該為|应当是|應當是|应为|應為|应是|應是|确实是|確實是|"
    r"等于|等於|等于是|是|为|為|即|选|選|[:：=→])"
)
_SAID = re.compile(
    rf"(?<!\#)\#{{4,8}}(?!\#)(?=[ \t*_$\\(]{{0,6}}(?:[A-Za-z] ?= ?)?[-+−–]?[$€£¥]?\s?(?:[\d.０-９]|\\[df]?frac))"
    rf"|{_ANSWER}{_AIM}{_ASIDE}[\s*_\"'`]{{0,4}}?(?:{_IS}|['’]s\b|[:=：→]|->|\s[-–—]\s(?=\S{{1,12}}\s*(?:\n|\Z)))"
    rf"|{_FOREIGN}"
    rf"|{_HAN_ANSWER}[*_\s」』】]{{0,4}}{_HAN_IS}"
    rf"|{_HAN_ANSWER}[ \t]{{0,3}}(?=[\d０-９$\\])|[【\[「《]{_HAN_ANSWER}[】\]」》]",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^[ \t#>*_【\[「《（(]{0,12}(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|最終的な答え|最终答案"
    r"|最終答案|答え|答案|解答|正解|答)"
    r"[ \t】\]」》）)*_:：]{0,8}$",
    re.IGNORECASE | re.MULTILINE,
)
_TAGGED = re.compile(r"<(answer|final|final_answer|choice|response)>(.{1,500}?)</\1>", re.IGNORECASE | re.DOTALL)
_BEFORE = re.compile(
    r"(?<=\s)(?:is|are|was)\s{1,3}(?:thus\s{1,3}|therefore\s{1,3})?(?:the|my|our)\s{1,3}(?:final\s{1,3}|correct\s{1,3}|right\s{1,3})?"
    r"(?:answer|choice|option|solution)\b"
    r"|(?:が|就是|是)(?:最終的な|最终的?|正しい|正确的?|正確的?)?(?:答え|正解|正答|答案|正确选项|正確選項)",
    re.IGNORECASE,
)
"""18 is the answer; what is stated stands before it, after _CLAUSE_STARTS."""
_CLAUSE_STARTS = re.compile(r"[\n;:!?。！？：、，]|\.\s|,\s")
_NO_SUBJECT = re.compile(
    r"\b(?:not|what|which|that|this|it|he|she|here)\s*$|什么|什麼|哪|何|不$|^\s*(?:if|whether)\b", re.IGNORECASE
)
_NUMBERED = re.compile(
    r"[ \t*_]{0,4}\d{1,3}(?:[.):][*_]{0,2}[ \t]+[*_]{0,2}[^\W\d]|[ \t](?:things|notes|remarks|ways|reasons|steps)\b)"
)
_SENTENCE_ENDS = re.compile(r"\.(?=\s|$)(?!(?<=\b[A-Z]\.)\s+[a-z])|[;!](?=\s|$)|[。！；]")
_MARKUP = " \t*_:：、,，\"'“”「」"
_HYPOTHESIS = re.compile(
    r"\b(?:if|whether|suppose|assume|assuming|unless|when|why|say)\s+(?:the|my|your|our|that)?\s*(?:\w+\s+)?$"
    r"|\b(?:(?:first|initially|originally),?\s+(?:i\s+)?(?:thought|said|assumed|believed)|(?:might|may|could)\s+(?:think|say|guess|expect))\s+(?:that\s+)?(?:the|my)?\s*(?:\w+\s+)?$",
    re.IGNORECASE,
)
_MINUS = re.compile(r"^[-–]\s(?=[$€£¥]?\d)")
_STEP_BY_STEP = re.compile(r"(?:step[- ]by[- ]step|ステップごとの|逐步|逐步的?)\s?$", re.IGNORECASE)
"""Before "answer:" it announces the way and not the result."""
_DENIED = re.compile(
    r"[\s*_]{0,4}(?:not|never|unlikely|unclear|unknown|no longer|neither)\b(?!.{0,60}(?:\bbut\b|[,;]\s*it\b))",
    re.IGNORECASE,
)
_ASKED = re.compile(r"[?？](?:\W*$|\s)")
_CALLED_RIGHT = re.compile(r"(?:indeed\s+|also\s+)?(?:correct|right|verified|confirmed|reasonable|consistent)\W*", re.I)
"""The answer is correct: which answer, that does not say."""
_DENIED_HAN = re.compile(r"(?:では|じゃ)(?:ない|ありません|なく)[\s。]*$|不对|不對|错误|錯誤")
_TURN = r"(?:hm+|wait|no|oops|sorry|hold\s+on|on\s+second\s+thoughts?|actually|but|however)\b[\s,.!:…—-]{0,6}"
_TAKEN_BACK = re.compile(
    rf"[\s*_>(]{{0,8}}(?:{_TURN}){{0,4}}"
    r"(?:(?:that|this|it)(?:\s+(?:answer|result|choice))?(?:\s+is|\s+was|'s|’s|\s+seems|\s+looks)"
    r"\s+(?:\w+\s+){0,2}?(?:wrong|incorrect|false|mistaken|not\s+(?:right|correct|true)|a\s+mistake)"
    r"|(?:that|this|it)\s+can(?:no|['’])t\s+be(?:\s+(?:right|correct|true)|\W*$)"
    r"|scratch\s+that|never\s*mind|ignore\s+that|correction\b|i\s+was\s+wrong|i\s+(?:miscounted|miscalculated|misread|misspoke|take\s+(?:that|it)\s+back)"
    r"|i\s+made\s+(?:a|an)\s+(?:\w+\s+)?(?:mistake|error))"
    r"|[\s*_>、，。]{0,8}(?:(?:いや|いえ|待って|待てよ|すみません|等等|等一下|抱歉|哦)[、，,。！…]{0,3})?"
    r"(?:訂正|間違[いえっ]|これは間違|不对|不對|更正|这是错|這是錯|我?[算弄搞]?错了|我?[算弄搞]?錯了)",
    re.IGNORECASE,
)
_DOUBTED = re.compile(
    rf"[\s*_>(]{{0,8}}(?:{_TURN}){{0,3}}(?:(?:wait|oops|hm+|hold\s+on|on\s+second\s+thoughts?|actually|sorry|i\s+meant?)\b|(?:no|rather)\s*[,.:!—-]|(?:after|on|upon)\s+(?:re-?(?:check|count|calc|consider|read|think|view|exam|flect)\w*|double-?\s?check\w*|closer\s+\w+)\b)"
    r"|[\s*_>、，。]{0,8}(?:いや|待って|待てよ|等等|等一下)",
    re.IGNORECASE,
)
_ASKED_NEXT = re.compile(
    r"^[ \t#>*_]{0,8}(?:(?:next|new|another|follow-?up)\s+)?(?:question|problem|exercise|example|q|質問"
    r"|問題|问题|問|问|题目|題目|例题|例題)"
    r"[ \t]{0,3}(?:\d{1,4}|[一二三四五])?[*_]{0,3}[ \t]{0,3}[:：.][*_ \t]{0,4}\S"
    r"|^[ \t]{0,3}#{1,6}[ \t*]{1,3}(?:(?:next|new|another|follow-?up)\s+)?(?:question|problem"
    r"|exercise|instructions?|問題|问题|題目|题目)[ \t]?\d{0,3}[ \t*:：]{0,4}$"
    r"|^[ \t]{0,3}\*\*(?:(?:next|new|another)\s+)?(?:question|problem|exercise|example)\s?\d{0,3}[:.]?\*\*[ \t:]{0,3}$"
    r"|(?<=[.!]\s)(?:next|new|another)\s+(?:question|problem)\s?:"
    r"|^[ \t]{0,4}(?:user|human|student)[*_]{0,2}[ \t]{0,2}(?:[:：]|$)"
    r"|^[ \t]{0,4}(?:question|problem|exercise|example)[ \t]\d{1,4}[ \t]{0,3}[:：.]?[ \t]{0,3}$"
    r"|^\[(?:question|problem|instruction)\]"
    r"|^[ \t]{0,4}(?:now|next),?[ \t]{1,3}(?:try|solve|answer|consider)\b[^.:：\n]{0,40}[:：]"
    r"|\blet['’]s[ \t]+try[ \t]+another[ \t]+(?:one|problem|question|example|exercise)\b"
    r"|<\|(?:im_start|user|start_header_id|endoftext|im_end|eot_id)\|>|\[INST\]",
    re.IGNORECASE | re.MULTILINE,
)


_BASE = re.compile(r"[ \t]{0,3}_[ \t]{0,3}\{?[ \t]{0,3}(\d{1,2})[ \t]{0,3}\}?")
"""Of a number, behind its box: \\boxed{2516}_{8}."""
_STRUCK = re.compile(r"~~(?=\S)[^~\n]{1,200}(?<=\S)~~|<(s|del|strike)>[^<>\n]{0,200}</\1>|</s>", re.IGNORECASE)
"""What is struck out is not said."""
_MARKED_UP = re.compile(r"<(b|strong|i|em|u|mark|code|big)>([^<>\n]{0,200})</\1>", re.IGNORECASE)


def own_answer(text: str, holds: Callable[[str], bool] | None = None) -> str:
    """The text up to the first question that the model asks itself after it has answered ("Question: another one").

    A question that is repeated before anything was answered is none of these. `holds` says whether a text without a
    final statement has an answer too.
    """
    text = _MARKED_UP.sub(r"\2", _STRUCK.sub("", text[-TAIL:]))
    since, held = 0, False  # each stretch between two questions is read once
    for found in deque(_ASKED_NEXT.finditer(text), maxlen=STATEMENTS):
        before, after, stretch = text[: found.start()], text[found.end() :], text[since : found.start()]
        if statements(before) or boxes(before):
            return before
        held = held or bool(holds and stretch.strip() and holds(stretch))
        if held and (len(before.strip()) <= BARE or not statements(after)):
            return before
        since = found.end()
    return text


def statements(text: str) -> list[Stated]:
    """All final statements of a text but boxes, in their order; hypothetical and denied ones are left out."""
    found = [*_said_after(text), *_tagged(text), *_said_before(text)]
    return sorted(found)


def boxes(text: str) -> list[Stated]:
    r"""Every whole \boxed{} that holds something, in their order: opened braces are kept on a stack."""
    opened: list[tuple[int, bool]] = []
    found = []
    for brace in _BRACES.finditer(text):
        if brace["box"] or brace[0] == "{":
            opened.append((brace.end(), bool(brace["box"])))
        elif brace[0] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and brace.start() - start <= LONGEST and (inside := text[start : brace.start()].strip()):
                base = _BASE.match(text, brace.end()) if inside.isalnum() else None
                found.append(Stated(start, inside + (f"_{{{base[1]}}}" if base else ""), brace.end()))
    found += [Stated(bare.start(1), bare[1], bare.end()) for bare in deque(_BARE_BOX.finditer(text), maxlen=STATEMENTS)]
    return sorted(found)


def last_boxes(text: str) -> list[str]:
    """What the last box says, and those directly before it where they are one list (3, 5 and 7 in a box each)."""
    found = boxes(text)
    row: list[Stated] = []
    for box in reversed(found):
        if row:
            opening = text.rfind("\\", 0, row[-1].start)
            while opening > 0 and text[opening - 1] == "\\":
                opening -= 1
            if box.end > opening or not _BETWEEN_BOXES.fullmatch(text, box.end, opening) or opening - box.end > 40:
                break
        row.append(box)
    return [box.said for box in reversed(row)]


def taken_back(text: str, statement: Stated) -> bool:
    """Whether the sentence after a statement takes it back ("Hmm, that is wrong")."""
    return bool(_TAKEN_BACK.match(_next_sentence(text, statement)))


def doubted(text: str, statement: Stated) -> bool:
    """Whether the sentence after a statement turns around ("No, wait"): what it says instead counts, if it does."""
    return bool(_DOUBTED.match(_next_sentence(text, statement)))


def _next_sentence(text: str, statement: Stated) -> str:
    following = text[statement.end : statement.end + LONGEST]
    ended = _SENTENCE_ENDS.search(following)
    inside = ended and "\n" not in following[: ended.start()]
    rest = following[ended.end() :] if ended and inside else following.partition("\n")[2]
    return rest.lstrip(" \t\n\"'”)*_}$")


def _said_after(text: str) -> Iterator[Stated]:
    for found in deque(_SAID.finditer(text), maxlen=STATEMENTS):
        if found[0].startswith("#") and _NUMBERED.match(text, found.end()):  # #### 3. Multiply
            continue
        before = max(0, found.start() - 30), found.start()
        if _HYPOTHESIS.search(text, *before) or _STEP_BY_STEP.search(text, *before):
            continue
        for stated in _spot(text, found.end()):  # behind a verb a dash is a minus
            yield stated._replace(said=_MINUS.sub("-", stated.said)) if found[0][-1].isalpha() else stated
    for found in deque(_HEADING.finditer(text), maxlen=STATEMENTS):
        yield from _spot(text, found.end())


def _spot(text: str, at: int) -> Iterator[Stated]:
    """The rest of the sentence, or the next line that is not blank."""
    following = text[at : at + LONGEST]
    offset = 0
    for line in following.splitlines(keepends=True):
        if line.strip(_MARKUP + "\r\n>#"):
            break
        offset += len(line)
    else:
        return
    line = line.rstrip("\r\n")
    if line.strip(_MARKUP) in ("$$", r"\["):  # a formula on lines of its own
        yield Stated(at, following, at + len(following))
        return
    line = line.lstrip(_MARKUP + ">#")
    ends = (found for found in _SENTENCE_ENDS.finditer(line) if line.count("$", 0, found.start()) % 2 == 0)  # $3! = 6$
    ended = next(ends, None)
    said = (line[: ended.start()] if ended else line).rstrip(_MARKUP)
    asked = _ASKED.search(said) is not None
    if (
        said
        and not asked
        and not _CALLED_RIGHT.fullmatch(said)
        and not _DENIED.match(said)
        and not _DENIED_HAN.search(said)
    ):
        start = at + offset
        yield Stated(at, said, text.find(said, start) + len(said))


def _tagged(text: str) -> Iterator[Stated]:
    for found in deque(_TAGGED.finditer(text), maxlen=STATEMENTS):
        if said := found[2].strip():
            yield Stated(found.start(2), said, found.end())


def _said_before(text: str) -> Iterator[Stated]:
    for found in deque(_BEFORE.finditer(text), maxlen=STATEMENTS):
        before = text[max(0, found.start() - 80) : found.start()]
        said = _CLAUSE_STARTS.split(before)[-1].strip(_MARKUP)
        if said and not _NO_SUBJECT.search(said) and not _HYPOTHESIS.search(said):
            yield Stated(found.start() - len(said), said, found.end())

r"""The letter that an answer chooses. A letter counts only where it is stated as a choice.

`D-glucose`, `B cells` and `D = 5 m` are no choices, options that are being listed are none, two choices are none, and
what is taken back does not count. Read are (D), D, d, `D`, \(D\), **D**, \text{D}, <answer>D</answer>, 故选D, 正解はD.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from suites.readings.characters import normalised
from suites.readings.last_sentences import knows_nothing, sentences
from suites.readings.statements import (
    LONGEST,
    STATEMENTS,
    TAIL,
    Stated,
    boxes,
    doubted,
    own_answer,
    statements,
    taken_back,
)

SHORT = 120
"""So many last characters of a sentence hold "so D"."""
_OPEN = r"[\s*_$\"'“‘«「『【\[{<(:：`,、，]"
_CLOSE = r"[\s*_$\"'”’»」』】\]}>)`]"
_WORD = (
    r"(?:(?i:options?|choices?|letter|alternative|statement|answer|opción|opção)[\s:]{1,3}|选项|選項|選択肢|选择|選擇)"
)
_AFTER = (
    r"(?=\s*$|\s*[\u2600-\u27bf\U0001f300-\U0001faff]|입니다|\s*[.,:;!?。、，：；！\n]|\s*[)）\]}】」]|[\"'”’]\s*[,})\]]|\s+(?:is|are|because|since|as|for|given|which|and|or|with|due|not|rather|here|in|from|by|"
    r"based|[-–—=]>?\s|[-–—(（&/])|\s?[-–—]\s|\s*(?:です|だ|である|で|が|は|を|に|と|の「|または|和|或|与|項|项|选项|是|因|/|&)|\s+[A-Z][a-z])"
)
_HEAD = re.compile(
    rf"{_OPEN}{{0,8}}{_WORD}?{_OPEN}{{0,8}}(?:(?:the|an?|la|die)\s+)?{_WORD}?{_OPEN}{{0,4}}"
    rf"(?:(?<=[(\[{{`$「【<«'‘“\"*])(?P<marked>[A-Ja-j])(?={_CLOSE}{{1,6}}(?!\s*(?:[=<>≤≥∈]|\\[a-z])))(?!['’][a-z])"
    rf"|(?P<bare>[B-HJ])(?!\s*[=<>≤≥+^_]|\.\s+[a-z])(?![-'’][A-Za-z]){_AFTER}"
    rf"|(?P<word>[AI])(?=\s*$|\s*[).,:;\]}}，。、]|\s+(?:because|since|and\s+not|or\s+\(?[B-J]\b|and\s+\(?[B-J]\b)|\s*(?:です|が|を|选|项))"
    rf"|(?P<small>[a-j])(?=\s*$|\s*[).:;]))"
)
_IN_PARENTHESES = re.compile(
    r"(?<![A-Za-z0-9_\])}^/])[(（\[【]\s?(?:(?i:option|choice|answer):?\s)?[*_]{0,2}([A-Ja-j])[*_]{0,2}\s?[)）\]】]"
)
_NEXT = re.compile(
    rf"{_CLOSE}{{0,6}}\s?(?:\b(?:or|and)\b|[/&,]|また?は|か|と|、|或者?|和|与|\()\s?(?:(?:or|and|also|else|maybe|possibly)\s){{0,2}}{_OPEN}{{0,4}}{_WORD}?"
    rf"{_OPEN}{{0,4}}([A-J])(?![A-Za-z0-9_'’-]|\s+(?:being|is|was|has|having|would|fails)\b)"
)
_BESIDE = re.compile(
    r"[,;]?\s*\b(?:since|because|as|whereas|while|although|but\s+not|not|rather\s+than|instead\s+of|whose|unlike|given)\b|因为|因為|なぜなら|ではなく|而不是|而非",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|isn't|can(?:no|')t\s+be)\s+[^.;\n]{0,40}?(?:\bbut\b|,\s*(?:it\s+is|it's)\b)"
    r"|[^.;\n]{1,40}?[-–—.,]\s*(?:(?:no|wait|actually|sorry)\b[\s,]*){1,2}(?=(?:it\s+is|it's)?\W*[A-J]\b)"
    r"|[^、，。\n]{1,20}?(?:ではなく|じゃなく)て?|不是[^，。\n]{1,20}[，,]?而是",
    re.IGNORECASE,
)
_CHOSEN_BY = re.compile(
    r"(?:(?i:\b(?:correct|right|best|appropriate|final|only\s+correct|most\s+\w+)\s+(?:option|choice|alternative|letter|statement|one|selection)"
    r"(?:\s+(?:here|among\s+them|given))?\s{0,3}[*_]{0,2}(?:is|must\s+be|would\s+be|should\s+be|has\s+to\s+be|:)"
    r"|\bmy\s+(?:(?:final|best|educated)\s+)?(?:choice|pick|option|guess)\s+(?:is|would\s+be)\b|\bbest\s+guess\s?(?:is|:)"
    r"|\bi(?:'ll|\s+will|\s+would|'d)?\s+(?:choose|pick|select|go\s+(?:with|for)|opt\s+for|say|answer|guess|meant?)\b"
    r"|\b(?:choose|select|pick|leaves(?:\s+(?:us\s+with|only))?|leaving|correct\s+is|matches\s+option|corresponds\s+to|(?:closest|nearest|equal|equivalent)\s+to(?=\s+(?:option|choice)))\b|\boption\s+is\b"
    r"|(?:^|(?<=[.!?]\s))[ \t*_#>{\"']{0,12}(?:(?:my|the|selected|chosen|final|best|correct)\s+){0,3}"
    r"(?:option|choice|final|correct)"
    r"[\s*_\"']{0,4}[:：]))"
    r"|(?:故|应|應|所以|因此|本题|本題|答案)?(?<![不没沒])(?:选择|選擇|选|選)(?![项項択拟出])(?:[:：是为為]|答案是?)?"
    r"|(?i:\b(?:opción|opção|option)\s+(?:correcta|correta|correcte)\s+(?:es|é|est)\b|\brichtig(?:e\s+\w{1,12})?\s+is(?:t)\b|правильный\s+\w{1,12}\s?[—–:-])"
    r"|最も(?:適切|適当|正しい|近い|妥当)な?(?:の|もの|選択肢)は|最(?:合适|恰当|准确|符合题意)的(?:选项|答案)?是"
    r"|(?:正确|正確|正しい)(?:的)?(?:选项|選項|選択肢|答案)(?:是|为|為|は|[:：])",
    re.MULTILINE,
)
_WEAK = re.compile(
    r"\b(?:(?i:it|this|that|which|must|should)\s+(?i:is|must\s+be|has\s+to\s+be|should\s+be|can\s+only\s+be|be)"
    r"|(?i:it|that)['’]s)\b"
)
_CLAUSE_STARTS = re.compile(r"[,;:—–]|\b(?:so|hence|thus|therefore|but)\b", re.IGNORECASE)
"""A is wrong, so it is B."""
_TURNS = re.compile(
    r"\W*(?:(?:no|wait|hm+|oops|actually|sorry|correction|but"
    r"|on\s+second\s+thoughts?)\b[\s,.!:…—-]*|(?:いや|いえ|不对|不對|等等)[、，,。！…]*){1,5}",
    re.IGNORECASE,
)
_HEDGED = re.compile(r"((?i:perhaps|maybe|possibly))\W{1,3}[A-J]\b.{1,60}?\b(?i:\1|or)\W{1,3}[A-J]\b")
"""Perhaps (D), perhaps (E)."""
_HENCE = re.compile(
    r"(?:.{0,120}?(?:[,;:?—–，、-]\s*|(?=[应應而][该該]?[是为為选選])))?\W*(?:(?i:maybe|perhaps|probably|likely|i\s+(?:think|believe)|we\s+get|yes|so|thus|therefore|hence|leaving|that\s+leaves|by\s+(?:process\s+of\s+)?elimination)\b|所以|因此|よって|正しくは|[应應而][该該]?[是为為选選])\W*(?:(?i:option|choice|answer)\s+)?\W*([A-J])(?:です|だ|である)?\W*$"
    r"|\W*(?i:since|as|because)\s.{1,100}?,\s([A-J])\W*$"
    r"|.{0,120}?(?:(?<=[,:;—–-])\s*(?i:option|choice)\s+|[:：→]\s*)\(?([A-J])\W*$"
)
_HOLDS = (
    r"(?:fits|works|satisfies|matches|remains|makes|meets|holds|agrees|answers|describes|explains|survives|is\s+left)"
)
_IT_IS = re.compile(
    r"\W*(?:(?i:option|choice)\s)?\W?([A-J])\W*\s+it()\s+is\W*$"
    r"|\W*(?:(?i:only|so|and|but|thus|hence|therefore)\W+)?(?:(?i:option|choice)\s+)?\W?([A-HJ])\b[)\]]?"
    rf"(?:,?\s(?i:because|since)\b|,\s(?:as|for)\b|\s(?:alone\s)?{_HOLDS}\b(?!.*\W[A-J]\b))"
)
"""D it is; D, because it holds; D remains."""
_CORRECT = re.compile(
    r"(?:^|[\s*_(（\[「`$、，]|选项|選項|選択肢)(?:(?i:option|choice|statement)\s+)?[(（\[]?([A-J])[)）\]]?[*_`$」]{0,3}\s?"
    r"(?:(?i:is|must\s+be|seems|looks|appears|would\s+be(?![^.;\n]{0,60}\bif\b))\s+(?i:to\s+be\s+)?(?i:the\s+|clearly\s+|therefore\s+|thus\s+)?"
    r"(?i:(?:only\s+|most\s+)?(?:correct|right|true|best|likely|accurate|plausible|closest)|(?:the\s+)?(?:answer|match)|only\s+(?:answer|choice|option|one))\b|(?i:the\s+(?:only\s+)?(?:best|correct|right)\s+(?:answer|choice|option)\b)|[:：]\s?[*_]{0,2}(?:(?i:yes|correct|true|right)\b|[✓✔✅])|(?:选项|項|项)?(?:が|は|是)?(?:正解|正しい|正确|正確|对|對)|を選(?:び|択|ぶ))"
)
_ONLY = re.compile(
    r"\b(?:[Oo]nly|(?:[Aa]mong|[Oo]f)\s+(?:the|these)(?:\s+(?:options|choices))?,)\s+(?:(?i:option|choice|statement|answer)\s+)?\(?([A-J])\)?\s+"
    rf"{_HOLDS}\b"
)
_CONCEDED = re.compile(
    r"\b(?:while|although|though|if|whether)\s+(?:(?:option|choice)\s+)?\W{0,3}$|\b(?:none\s+of|neither|(?:either|both)\s+\W?[A-J])\b[^.;]*$",
    re.IGNORECASE,
)
"""Although B looks right, …; none of A to D is right."""
_ROMAN = re.compile(r"statement\s+I\b", re.IGNORECASE)
_OPTION_LINE = re.compile(
    r"^[ \t#>*_✓✔✅✗✘❌-]{0,6}(?:(?i:option|choice)\s|选项|選択肢)?[(（]?([A-Ja-j])"
    r"(?:[)）.:：、][*_]{0,2}|\s[-–—]\s(?=[A-Za-z]{3}))(?=\s|$|\S)",
    re.MULTILINE,
)
_ANSWER_COMES = re.compile(r"\s*A[:：]\s(?:.{80}|[^.]{1,80}\.\s)|\s*A[:：]\s*\W{0,4}[A-J]\W{0,4}$")
"""A: Let's think … is no option, but the answer to the question Q:."""
_LABEL = re.compile(
    r"(?:^|[.;。；])[ \t#>*_(（-]{0,6}(?:\d{1,2}[.)][ \t])?"
    r"(?:(?i:option|choice)\s|选项|選択肢)?([A-Ja-j])(?![A-Za-z'’-])[ \t*_:.)）]{0,4}",
    re.MULTILINE,
)
_NEXT_LABEL = re.compile(r"\s*[(（]\s?[A-J]?[)）]?\s*$")
_PART = re.compile(r".{80}|.{1,80}?[.;]\s")
_VERDICT = re.compile(r"(?:\b(?:correct|right|true|yes)\b|✓|✔|✅|正しい|正解|正确|正確)", re.IGNORECASE)
_TICKED = re.compile(r"[ \t#>*_-]{0,6}[✓✔✅]")
_VERDICT_AT_END = re.compile(
    r"(?:[.,;:(—–-]\s*|→\s*|\s)(?:correct|right|true|✓|✔|✅|正しい|正解|正确|正確)[\W_]*$", re.IGNORECASE
)
_AGAINST = re.compile(
    r"\b(?:not|in)?\s?(?:incorrect|wrong|false|no|not|neither|eliminat\w*|is\s+out|ruled\s+out|(?:is|do|does|did|would)n['’]t|(?:can\s?not|can['’]?t|couldn['’]t)\s+be)\b|✗|✘|❌|誤り|错误|不正确",
    re.IGNORECASE,
)
_LETTER_ALONE = re.compile(
    r"[\W_]*(?:(?i:option|choice|answer)\s)?([A-J])(?:[\W_]{1,4}\1\b)*(?!\s?:?=)[\W_]*(?:です|だ|である)?[\W_]*$"
)
_ENDS = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bvs)[.;!](?=\s|$)|[。！；]")
_NONE = re.compile(
    r"\b(?:none|neither)\s+of\s+(?:the|these|them|those)\b(?!.{0,40}[(（][A-J][)）]\W*$)|どれでもない|以上都不",
    re.IGNORECASE,
)
_WEIGHED = re.compile(
    r"^\W*(?:(?:now|next|first|then),?\s+)?(?:if|suppose|assume|assuming|consider\w*|let['’]s|let\s+(?:us|me)|look\w*\s+at|check\w*|examine|examining|evaluat\w+|what\s+about)\b",
    re.IGNORECASE,
)
"""If (B) were true; let's look at (C)."""


def final_letter(text: str, *, cut: bool = False) -> str:
    """The letter A to J that is chosen; "" when none is, or two are.

    `cut`: the budget ended the text. An option that it was at then, in a list or one by one, is not chosen.
    """
    text = _plain(own_answer(text[-TAIL:], lambda before: bool(_unstated(_plain(before)))))
    for statement in reversed(_strong(text)):
        letter = _letter_of(statement.said)
        if letter is None or _lists_options(text, statement):
            continue
        rest = text[statement.end :]
        if taken_back(text, statement):
            return _unstated(rest, cut)
        return (doubted(text, statement) and _unstated(rest, cut)) or letter
    for boxed in reversed(boxes(text)):
        if letter := _letter_of(boxed.said):
            return letter
    return _unstated(text, cut)


def _lists_options(text: str, statement: Stated) -> bool:
    """Whether what stands as the answer is the first of a list of the options: A. 5, and B. 6 on the next line."""
    line, _, following = text[statement.end - len(statement.said) :][: 2 * LONGEST].partition("\n")
    here, after = _OPTION_LINE.match(line), _OPTION_LINE.match(following.lstrip())
    return bool(here and after and ord(after[1].upper()) == ord(here[1].upper()) + 1)


def _plain(text: str) -> str:
    r"""Formulas' delimiters as brackets and dollars as nothing: \(D\), $D$ and \mathrm{D} are written as (D) and D."""
    text = re.sub(r"\\[(\[]\s?(.{1,40}?)\s?\\[)\]]", r"(\1)", text)
    return normalised(text).replace("（", "(").replace("）", ")")


def _strong(text: str) -> list[Stated]:
    found = [*statements(text), *_after(_CHOSEN_BY, text)]
    return sorted(found)


def _after(pattern: re.Pattern[str], text: str) -> Iterator[Stated]:
    for found in deque(pattern.finditer(text), maxlen=STATEMENTS):
        rest = text[found.end() : found.end() + LONGEST].lstrip()
        line = rest.partition("\n")[0]
        said = _ENDS.split(line, maxsplit=1)[0]
        if said:
            yield Stated(found.end(), said, text.find(said, found.end()) + len(said))


def _letter_of(said: str) -> str | None:
    """The letter that a statement chooses; "" when it chooses two, None when it chooses none."""
    said = _DENIED.sub(" ", said)
    if re.match(r"\W*(?:not|neither)\b", said, re.IGNORECASE) or _NONE.search(said):
        return None
    if head := _HEAD.match(said):
        letter = (head["marked"] or head["bare"] or head["word"] or head["small"]).upper()
        second = _NEXT.match(said, head.end())
        either = re.match(r"\W*(?:either|both)\b", said, re.IGNORECASE)
        return "" if either or (second and second[1] != letter) else letter
    clause = said
    if beside := _BESIDE.search(said):
        clause = said[: beside.start()]
    letters = {found.upper() for found in _IN_PARENTHESES.findall(clause)}
    if not letters:
        both = re.match(r"\W*(?:either|both|between)\s+\(?[A-J]\b", clause, re.IGNORECASE)
        return "" if both else None
    return letters.pop() if len(letters) == 1 else ""


def _unstated(text: str, cut: bool = False) -> str:
    """The letter of a text that does not say "the answer is": one that is called correct, or that it ends with."""
    weighed = _weighed_last(text) if cut else None
    text = text if weighed is None else text[:weighed]
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    options = {found[1].upper(): found for found in _OPTION_LINE.finditer(text)}
    listed = len(options) > 1
    correct = {
        found[1]
        for found in _CORRECT.finditer(text)
        if not _ROMAN.search(found[0]) and not _CONCEDED.search(text, max(0, found.start(1) - 30), found.start(1))
    }
    correct |= {found[1] for found in _ONLY.finditer(text)}
    if len(correct) == 1:
        return correct.pop()
    if listed:
        marked = {letter for letter in options if _called_correct(lines, letter)}
        if len(marked) == 1:
            return marked.pop()
    # the next option begins
    cut_there = (len(options) > 2 and _NEXT_LABEL.match(lines[-1])) or ((cut or len(options) > 2) and _lists_on(text))
    if weighed is not None or cut_there:
        return ""
    if (letter := _of_last_line(lines[-1], listed, long=len(text) > LONGEST)) is not None:
        return letter
    alone = {found[1] for line in lines if (found := _LETTER_ALONE.match(line))}
    if not alone and len(options) == 1 and len(lines) > 1:
        alone = _begins_with(lines[0])
    return alone.pop() if len(alone) == 1 else ""


def _weighed_last(text: str) -> int | None:
    """Where the last sentence begins, if it begins with the label of an option: "(B) says that the". None where it does
    not, and where nothing else is said, so that it is the answer: "D. Mitochondria are the"."""
    line = text.rstrip().rpartition("\n")[2]
    for said in (next(sentences(line), "").strip(), line.strip()):
        if said and (found := _OPTION_LINE.match(said)):
            alone = said == text.strip() and (_LETTER_ALONE.match(said) or found[1] != "A")
            return None if alone else text.rindex(said)
    return None


def _begins_with(line: str) -> set[str]:
    """The option that a text begins with, before it explains it. A is left out: a list of the options begins so."""
    found = _OPTION_LINE.match(line)
    chosen = found is not None and found[1] in "BCDEFGHIJ" and not _AGAINST.search(line)
    return {found[1]} if found and chosen else set()


def _lists_on(text: str) -> bool:
    """Whether a text ends in the bare label of the option after that of the sentence before: "C is false. D"."""
    text = text.rstrip()[-LONGEST:]
    labels = list(_LABEL.finditer(text))[-2:]
    if len(labels) < 2 or labels[1].end() < len(text) or "\n" in text[labels[0].end() : labels[1].start()].strip():
        return False
    return ord(labels[1][1].upper()) == ord(labels[0][1].upper()) + 1


def _of_last_line(line: str, listed: bool, long: bool) -> str | None:
    """The letter that the last line is an option of, or that its last sentence comes to; "" for two, None for none."""
    option = _OPTION_LINE.match(line)
    if option and _ANSWER_COMES.match(line):
        line, option = line[option.end() :], None
    if option and option[1].islower() and (long or _PART.match(line, option.end())):  # part (a) of a derivation
        line, option = line[option.end() :], None
    if option and listed:
        return None
    *before, last = [part.strip() for part in line.split(". ") if part.strip()] or [""]
    if before and (hence := _HENCE.match(last[-SHORT:])):  # (A) is out. (B) is out. So (D).
        return str(next(filter(None, hence.groups())))
    if option and not _AGAINST.search(line):
        stated = _letter_of(line)
        return option[1].upper() if stated is None else stated
    said = [part.strip().rstrip(".;!。！；") for part in sentences(line) if part.strip()]  # the last one first
    if not said:
        return None
    if knows_nothing(said[0]):
        return ""
    letter = "" if _HEDGED.search(said[0]) else _of_last(said[0])
    lone = [found[1] for part in said if (found := _LETTER_ALONE.match(part))]
    is_last = len(lone) == 1 and lone[0] not in "AI" and _LETTER_ALONE.match(said[0])
    return lone[0] if letter is None and is_last else letter


def _called_correct(lines: list[str], letter: str) -> bool:
    for line in lines:
        if (found := _OPTION_LINE.match(line)) and found[1].upper() == letter:
            said = line[found.end() :].lstrip(" *_-—–:")
            if (
                _TICKED.match(line)
                or _VERDICT.match(said)
                or (_VERDICT_AT_END.search(said) and not _AGAINST.search(said))
            ):
                return True
    return False


def _of_last(sentence: str) -> str | None:
    """The letter of the last sentence; "" when it holds two, None when it holds none."""
    if turns := _TURNS.match(sentence):
        sentence = sentence[turns.end() :]
        if alone := _LETTER_ALONE.match(sentence):  # No: D
            return alone[1]
    if _DENIED.match(sentence) and (alone := _LETTER_ALONE.match(_DENIED.sub("", sentence))):  # 不是F，而是G
        return alone[1]
    for weak in deque(_WEAK.finditer(sentence), maxlen=STATEMENTS):
        clause = _clause_before(sentence, weak)
        said = _DENIED.sub(" ", sentence[weak.end() : weak.end() + LONGEST])
        if (letter := _letter_of(said)) is not None and not any(
            (_AGAINST.search(clause), _AGAINST.search(said), _WEIGHED.match(clause))
        ):
            return letter
    if hence := _HENCE.match(sentence[-SHORT:]) or _IT_IS.match(sentence):
        return str(next(filter(None, hence.groups())))
    letters = {  # a small one in the middle is a part of the question, an index, the state of a gas
        found[1].upper()
        for found in _IN_PARENTHESES.finditer(sentence)
        if ((found[1].isupper() and not _is_initial(sentence, found)) or not sentence[found.end() :].strip(" .*"))
        and not _WEIGHED.match(_clause_before(sentence, found))
    }
    if not letters or _AGAINST.search(sentence) or _NONE.search(sentence):
        return None
    return letters.pop() if len(letters) == 1 else ""


def _clause_before(sentence: str, found: re.Match[str]) -> str:
    return _CLAUSE_STARTS.split(sentence[max(0, found.start() - LONGEST) : found.start()])[-1]


def _is_initial(sentence: str, letter: re.Match[str]) -> bool:
    """Whether a letter in brackets is short for the words before it: government spending (G), Consumption (C)."""
    words = sentence[: letter.start()].split()[-2:]
    return any(word[:1].upper() == letter[1] for word in words)

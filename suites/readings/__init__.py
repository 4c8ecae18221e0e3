"""How an answer is read: what it states, how it ended, in which language it is (docs/answers.md).

`numerals` is the one grammar of numbers; `statements` finds what is stated; `final_numbers`, `final_letters` and
`final_expressions` take from it the thing stated. `accepted_answers` asks whether any part of an answer says one
of those accepted (language, ruler, needle).
"""

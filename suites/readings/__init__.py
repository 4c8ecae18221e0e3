"""How an answer is read: what it states, how it ended, in which language it is.

`final_answers` finds the one thing that an answer ends with (cot, termination); `accepted_answers` asks whether any
part of it is one of the answers accepted (language). RULER and needle match as RULER does, in `suites/ruler/suite.py`.
"""

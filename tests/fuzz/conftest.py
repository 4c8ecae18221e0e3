"""What was fuzzed: said at the end, by target."""

from fuzzing import INPUTS, SECONDS
from pytest import TerminalReporter


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    if not INPUTS:
        return
    for name, count in sorted(INPUTS.items()):
        terminalreporter.write_line(f"fuzz: {count:>7,} inputs, {SECONDS[name]:>7.1f} s of processor time: {name}")
    whole = sum(INPUTS.values())
    terminalreporter.write_line(f"fuzz: {whole:>7,} inputs, {sum(SECONDS.values()):>7.1f} s of processor time in all")

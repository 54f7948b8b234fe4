import argparse
import importlib

import pytest

from benchmarks import run_all


@pytest.mark.parametrize("command", [command for commands in run_all.COMPARISONS.values() for command in commands])
def test_every_comparison_takes_the_arguments_it_is_given(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class ParsedError(Exception):
        """Nothing is to be measured here."""

    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, args: list[str] | None = None) -> None:
        raise ParsedError(parse(parser, args))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    name, *arguments = command
    with pytest.raises(ParsedError):
        importlib.import_module(f"benchmarks.{name}").main([*arguments, "--results", "figures.json"])


def test_an_unknown_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_all.main(["speed"])
    assert ended.value.code == 2
    assert "there is no comparison speed; there are limits, features" in capsys.readouterr().err

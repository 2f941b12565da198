"""The command `completion`: a script that lets a shell complete commands, options and their values."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .options import Command, option

ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
"""zsh takes a script for bash after this."""

SCRIPT = """\
_ulmfit_fastai() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" known=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        known="{commands} --help --version"
    else
        case "${{COMP_WORDS[1]}} $before" in
{values}
            *)
                case "${{COMP_WORDS[1]}}" in
{options}
                esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$known" -- "$word"))
}}
complete -o default -F _ulmfit_fastai ulmfit-fastai
"""
"""`-o default`: where no word of these fits, names of files do."""


def completion(args: argparse.Namespace) -> int:
    """Print a script with which bash or zsh completes commands, options and their values.

    examples:
      ulmfit-fastai completion bash > ~/.local/share/bash-completion/completions/ulmfit-fastai
      ulmfit-fastai completion zsh >> ~/.zshrc
    """
    print((ZSH if args.shell == "zsh" else "") + script(args.parser), end="")
    return 0


def script(parser: argparse.ArgumentParser) -> str:
    """The script for bash, of the parser of the whole command line."""
    parsers = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    values = [line for name, parser in parsers.items() for line in _values(name, parser)]
    options = [f'                    {name}) known="{" ".join(_words(parser))}" ;;' for name, parser in parsers.items()]
    return SCRIPT.format(commands=" ".join(parsers), values="\n".join(values), options="\n".join(options))


def _values(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """For each option with a fixed choice, or with any value: what may follow it."""
    for action in parser._actions:
        if action.option_strings and action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
            asked = "|".join(f'"{name} {flag}"' for flag in action.option_strings)
            yield f'            {asked}) known="{" ".join(map(str, action.choices or ()))}" ;;'


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A command's options, and the words that its other arguments may be."""
    for action in parser._actions:
        yield from action.option_strings
        if not action.option_strings and action.choices:
            yield from map(str, action.choices)


COMPLETION = Command("completion", completion, (option("shell", choices=("bash", "zsh"), help="which shell"),))

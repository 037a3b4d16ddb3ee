"""Completion for shells, from the definitions of the parsers: `pytracecon --completion bash`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytracecon.commands.definitions import Definition, Option

__all__ = ["completion"]

_FILES = ("FILE", "PATH")


def completion(shell: str) -> str:
    from pytracecon.commands.definitions import definitions  # noqa: PLC0415 - not for --help

    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return "".join(f"{line}\n" for line in make(definitions()))


def _bash(verbs: list[Definition]) -> Iterator[str]:
    names = " ".join(verb.verb for verb in verbs)
    yield '# bash completion of pytracecon. To have it: eval "$(pytracecon --completion bash)"'
    yield "_pytracecon() {"
    yield "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=trace at"
    # An equals sign is a word of its own.
    yield '    [[ $prev == "=" ]] && prev=${COMP_WORDS[COMP_CWORD-2]}'
    yield '    [[ $cur == "=" ]] && cur='
    yield "    COMPREPLY=()"
    yield "    if ((COMP_CWORD > 1)); then"
    yield f"        case ${{COMP_WORDS[1]}} in {names.replace(' ', '|')}) verb=${{COMP_WORDS[1]}} ;; esac"
    yield "    fi"
    for verb in verbs:
        if verb.takes_command:
            yield f"    if [[ $verb == {verb.verb} ]]; then"
            yield "        for ((at = 2; at < COMP_CWORD; at++)); do"
            yield "            [[ ${COMP_WORDS[at]} == -- ]] || continue"
            yield "            if declare -F _command_offset > /dev/null; then"
            yield "                _command_offset $((at + 1))"
            yield "            elif ((at + 1 == COMP_CWORD)); then"
            yield '                mapfile -t COMPREPLY < <(compgen -c -- "$cur")'
            yield "            else"
            yield "                compopt -o filenames"
            yield '                mapfile -t COMPREPLY < <(compgen -f -- "$cur")'
            yield "            fi"
            yield "            return"
            yield "        done"
            yield "    fi"
    yield "    case $verb:$prev in"
    for verb in verbs:
        for option in verb.options:
            if option.value is not None and option.names:
                pattern = "|".join(f"{verb.verb}:{name}" for name in option.names)
                yield f"        {pattern}) {_bash_value(option)} return ;;"
    yield "    esac"
    yield "    if ((COMP_CWORD == 1)) && [[ $cur != -* ]]; then"
    yield f'        mapfile -t COMPREPLY < <(compgen -W "{names}" -- "$cur")'
    yield "        return"
    yield "    fi"
    yield "    case $verb in"
    for verb in verbs:
        words = [name for option in verb.options for name in option.names] + (["--"] if verb.takes_command else [])
        yield f'        {verb.verb}) mapfile -t COMPREPLY < <(compgen -W "{" ".join(words)}" -- "$cur") ;;'
    yield "    esac"
    yield "}"
    yield "complete -F _pytracecon pytracecon"


def _bash_value(option: Option) -> str:
    if option.choices:
        return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(option.choices)}" -- "$cur");'
    if option.value in _FILES:
        return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur");'
    if option.value == "USER":
        return 'mapfile -t COMPREPLY < <(compgen -u -- "$cur");'
    if option.value == "PID":
        return 'mapfile -t COMPREPLY < <(compgen -W "$(cd /proc && echo [0-9]*)" -- "$cur");'
    return ""


def _zsh(verbs: list[Definition]) -> Iterator[str]:
    yield "#compdef pytracecon"
    yield '# zsh completion of pytracecon. To have it: eval "$(pytracecon --completion zsh)", behind compinit'
    yield "_pytracecon() {"
    yield "    local verb=trace"
    yield "    local -a verbs=("
    for verb in verbs:
        yield f"        {_quoted(_colons(verb.verb) + ':' + _colons(verb.summary))}"
    yield "    )"
    yield "    if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then"
    yield "        _describe verb verbs"
    yield "        return"
    yield "    fi"
    yield "    if ((${verbs[(I)$words[2]:*]})); then"
    yield "        verb=$words[2]"
    yield "        shift words"
    yield "        ((CURRENT--))"
    yield "    fi"
    yield "    case $verb in"
    for verb in verbs:
        yield f"        {verb.verb})"
        if verb.takes_command:
            yield "            local at=${words[(ie)--]}"
            yield "            if ((at < CURRENT)); then"
            yield "                words=($words[at+1,-1])"
            yield "                ((CURRENT -= at))"
            yield "                _normal"
            yield "                return"
            yield "            fi"
        yield "            _arguments -s \\"
        specs = [spec for option in verb.options for spec in _zsh_option(option)]
        yield from (f"                {spec} \\" for spec in specs[:-1])
        yield f"                {specs[-1]}"
        yield "            ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $funcstack[1] == _pytracecon ]]; then _pytracecon "$@"; else compdef _pytracecon pytracecon; fi'


def _zsh_option(option: Option) -> Iterator[str]:
    action = "" if option.value is None else f":{_colons(option.value)}:{_zsh_value(option)}"
    if not option.names:
        yield _quoted(f"::{_colons(option.value or '')}:")
        return
    help_ = f"[{_brackets(option.help)}]"
    for name in option.names:
        others = " ".join(option.names)
        before = "*" if option.repeatable else f"({others})"
        yield _quoted(f"{before}{name}{help_}{action}")


def _zsh_value(option: Option) -> str:
    if option.choices:
        return f"({' '.join(option.choices)})"
    return {"FILE": "_files", "PATH": "_files", "USER": "_users", "PID": "_pids"}.get(option.value or "", "")


def _brackets(text: str) -> str:
    return _colons(text).replace("[", r"\[").replace("]", r"\]")


def _colons(text: str) -> str:
    return text.replace("\\", r"\\").replace(":", r"\:")


def _fish(verbs: list[Definition]) -> Iterator[str]:
    names = " ".join(verb.verb for verb in verbs)
    yield "# fish completion of pytracecon. To have it: pytracecon --completion fish | source"
    yield "function __pytracecon_verb"
    yield "    set -l words (commandline -opc)"
    yield f"    if test (count $words) -gt 1; and contains -- $words[2] {names}"
    yield "        echo $words[2]"
    yield "    else"
    yield "        echo trace"
    yield "    end"
    yield "end"
    yield "function __pytracecon_is"
    yield "    test (__pytracecon_verb) = $argv[1]; and not contains -- -- (commandline -opc)[2..-1]"
    yield "end"
    yield "function __pytracecon_command"
    yield "    set -l words (commandline -opc) (commandline -ct)"
    yield "    set -l at (contains -i -- -- $words)"
    yield "    complete -C (string join -- ' ' (string escape -- $words[(math $at + 1)..-2]) $words[-1])"
    yield "end"
    yield "complete -c pytracecon -f"
    for verb in verbs:
        told = f"-a {verb.verb} -d {_fish_quoted(verb.summary)}"
        yield f"complete -c pytracecon -n 'test (count (commandline -opc)) -eq 1' {told}"
    for verb in verbs:
        when = f"-n '__pytracecon_is {verb.verb}'"
        for option in verb.options:
            if option.names:
                yield f"complete -c pytracecon {when} {_fish_option(option)}"
        if verb.takes_command:
            command = f"'test (__pytracecon_verb) = {verb.verb}; and contains -- -- (commandline -opc)[2..-1]'"
            yield f"complete -c pytracecon -n {command} -a '(__pytracecon_command)'"


def _fish_option(option: Option) -> str:
    words = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    words.append(f"-d {_fish_quoted(option.help)}")
    if option.choices:
        words.append(f"-x -a {_fish_quoted(' '.join(option.choices))}")
    elif option.value in _FILES:
        words.append("-r -F")
    elif option.value in ("USER", "PID"):
        words.append(f"-x -a '(__fish_complete_{'users' if option.value == 'USER' else 'pids'})'")
    elif option.value is not None:
        words.append("-x")
    return " ".join(words)


def _quoted(text: str) -> str:
    """As one word, for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

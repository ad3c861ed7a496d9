# bash completion for claudefs. Commands and options are asked of the program itself (its --help), so
# this never is of another version; names of peers and ids of conflicts are asked of the daemon.

_claudefs_commands() { # of a group: words after "commands:" in its help
    "$@" --help 2>/dev/null | sed -n '/^commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'
}

_claudefs_options() { # of a command
    "$@" --help 2>/dev/null | grep -o -- '--[a-z][a-z-]*' | sort -u
}

_claudefs() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} program=${COMP_WORDS[0]}
    local command=() word i dir=$CLAUDEFS_DIR
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        [[ $word == --dir ]] && dir=${COMP_WORDS[i+1]}
        # The command is the first words that are commands.
        if ((${#command[@]} == i - 1)) && [[ $word != -* ]]; then
            case " $(_claudefs_commands "$program" "${command[@]}" | tr '\n' ' ') " in
                *" $word "*) command+=("$word") ;;
            esac
        fi
    done
    COMPREPLY=()
    case $prev in
        --dir|--key|--out|--log-file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --keep) mapfile -t COMPREPLY < <(compgen -W 'mine theirs both' -- "$cur"); return ;;
        --log) mapfile -t COMPREPLY < <(compgen -W 'error warn info debug' -- "$cur"); return ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_claudefs_options "$program" "${command[@]}")" -- "$cur")
        return
    fi
    local words
    words=$(_claudefs_commands "$program" "${command[@]}")
    case "${command[*]}" in
        'peer pause'|'peer resume'|'peer remove'|'peer readmit')
            words=$("$program" peer list --json ${dir:+--dir "$dir"} 2>/dev/null |
                sed -n 's/.*"name": "\(.*\)".*/\1/p') ;;
        'conflicts show'|'conflicts resolve'|'conflicts undo')
            words=$("$program" conflicts list --all --json ${dir:+--dir "$dir"} 2>/dev/null |
                sed -n 's/.*"id": "\(.*\)".*/\1/p') ;;
        log-level) words='error warn info debug' ;;
        mount) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o bashdefault -F _claudefs claudefs

# bash completion for lhyve and lhyvectl. Words come from the programs' own tables.

# The whole word under the cursor, though bash takes = and : as words of their own, the word before it, and what of it bash
# has cut off: offers must not repeat that.
_lhyve_word()
{
	local i=$COMP_CWORD
	cur=${COMP_WORDS[i]}
	while ((i > 1)) && [[ ${COMP_WORDS[i]} == [=:]* || ${COMP_WORDS[i-1]} == [=:] ]]; do
		((i--))
		cur=${COMP_WORDS[i]}$cur
	done
	prev=${COMP_WORDS[i-1]}
	if [[ $cur == --*=* ]]; then
		prev=${cur%%=*}
		cur=${cur#*=}
	fi
	cut=${cur%"${cur##*[=:]}"}
}

# -s SLOT,DEVICE[,FILE][,KEY=VALUE]...
_lhyve_slot()
{
	local head=${cur%,*} last=${cur##*,} rest=${cur#*,}
	local dev=${rest%%,*}
	if [[ $cur != *,* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "help" -- "$cur")
	elif [[ $rest != *,* ]]; then
		mapfile -t COMPREPLY < <(compgen -P "${cur%%,*}," -W "$("$prog" -s help 2>/dev/null)" -- "$rest")
	elif [[ $last == *=* ]]; then
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -f -P "$head,${last%%=*}=" -- "${last#*=}")
	else
		compopt -o nospace
		mapfile -t COMPREPLY < <(
			[[ ${rest#*,} == *,* ]] || compgen -f -P "$head," -- "$last"
			compgen -P "$head," -W "$("$prog" --print device-words 2>/dev/null | awk -v d="$dev" '$1 == d { print $2 }')" -- "$last")
	fi
}

_lhyve()
{
	local cur prev cut prog=${COMP_WORDS[0]}
	COMPREPLY=()
	_lhyve_word
	case $prev in
	-k|-r|--kernel|--initrd)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	-s)
		_lhyve_slot ;;
	-l)
		compopt -o nospace
		if [[ $cur == *,* ]]; then
			mapfile -t COMPREPLY < <(compgen -P "${cur%%,*}," -W "stdio pty null tcp= unix= file= /dev/" -- "${cur#*,}")
		else
			mapfile -t COMPREPLY < <(compgen -W "help $("$prog" -l help 2>/dev/null)" -- "$cur")
		fi ;;
	-o)
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -W "$("$prog" --print key-words 2>/dev/null)" -- "$cur") ;;
	--engine)
		mapfile -t COMPREPLY < <(compgen -W "auto kvm soft" -- "$cur") ;;
	*)
		# an argument that nothing here knows
		"$prog" --print arg-words 2>/dev/null | grep -qxFe "$prev" ||
			mapfile -t COMPREPLY < <(compgen -W "$("$prog" --print words 2>/dev/null)" -- "$cur") ;;
	esac
	COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}

_lhyvectl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prog=${COMP_WORDS[0]} line=${COMP_LINE} vm words
	COMPREPLY=()
	# bash takes = as a word of its own
	if [[ ${COMP_WORDS[COMP_CWORD-1]} == "=" && ${COMP_WORDS[COMP_CWORD-2]} == --vm ]] ||
	   [[ $cur == "=" && ${COMP_WORDS[COMP_CWORD-1]} == --vm ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$prog" list 2>/dev/null | awk '{ print $1 }')" -- "${cur#=}")
		return
	fi
	if [[ ${COMP_WORDS[COMP_CWORD-1]} == "=" && ${COMP_WORDS[COMP_CWORD-2]} == --symbols ]] ||
	   [[ $cur == "=" && ${COMP_WORDS[COMP_CWORD-1]} == --symbols ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "${cur#=}")
		return
	fi
	if [[ $cur == -* ]]; then
		words=$("$prog" --help 2>/dev/null | sed -n 's/^ *\[\(--[a-z0-9-]*\).*/\1/p')
		mapfile -t COMPREPLY < <(compgen -W "--vm $words" -- "$cur")
		return
	fi
	words="list help status pause resume move reset powerdown poweroff destroy stats registers devices memory profile events"
	if [[ $line =~ --vm[=\ ]([^ ]+) ]]; then
		vm=${BASH_REMATCH[1]}
		words+=" $("$prog" --vm="$vm" commands 2>/dev/null | sed -n 's/^\([a-z][a-z-]*\) .*/\1/p')"
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _lhyve lhyve bhyve
complete -F _lhyvectl lhyvectl bhyvectl

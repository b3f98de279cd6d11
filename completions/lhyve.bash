# bash completion for lhyve and lhyvectl. Words come from the programs' own tables.

_lhyve()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} prog=${COMP_WORDS[0]} slot dev
	COMPREPLY=()
	case $prev in
	-k|-r|--kernel|--initrd)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-s)
		slot=${cur%%,*}
		if [[ $cur == *,*,* ]]; then
			dev=${cur%,*}
			compopt -o nospace
			mapfile -t COMPREPLY < <(compgen -f -P "$dev," -- "${cur##*,}")
		elif [[ $cur == *,* ]]; then
			mapfile -t COMPREPLY < <(compgen -P "$slot," -W "$("$prog" -s help 2>/dev/null)" -- "${cur#*,}")
		else
			mapfile -t COMPREPLY < <(compgen -W "help" -- "$cur")
		fi
		return ;;
	-l)
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -W "help $("$prog" -l help 2>/dev/null)" -- "$cur")
		return ;;
	-o)
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -W "$("$prog" --print key-words 2>/dev/null)" -- "$cur")
		return ;;
	--engine)
		mapfile -t COMPREPLY < <(compgen -W "auto kvm soft" -- "$cur")
		return ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$("$prog" --print words 2>/dev/null)" -- "$cur")
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

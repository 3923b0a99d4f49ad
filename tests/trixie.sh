# Sourced by what makes a part of a guest's userland of Debian packages. These are always of
# the same release, by package lists of its own: the host's apt sources say only where from,
# and nothing is installed. What is made is kept beside the guest's kernel; only the first run
# needs the network.
set -eu
export LC_ALL=C
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/containerfs-guest
lib=usr/lib/x86_64-linux-gnu

# make_once NAME FUNCTION PACKAGE... prints a directory that has what FUNCTION makes in root of
# the packages, which are unpacked in x. Exit code 3: they cannot be had from there.
make_once() {
	local name=$1 make=$2 dir work mirror apt deb
	dir=$cache/$name-$(cat "$0" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-16)
	shift 2
	if [ ! -e "$dir" ]; then
		umask 022
		mkdir -p "$cache"
		exec 9>"$cache/lock"
		flock 9
	fi
	if [ ! -e "$dir" ]; then
		work=$(mktemp -d "$cache/new.XXXXXX")
		# shellcheck disable=SC2064 # it is this one, then too
		trap "rm -rf '$work'" EXIT
		cd "$work"
		mirror=$(apt-get --print-uris update | sed -n "s,^'\(.*/debian\)/dists/[^/]*/InRelease'.*,\1,p" | head -n1)
		[ -n "$mirror" ] || { echo "$name: no mirror of Debian among apt's sources" >&2; exit 3; }
		mkdir -p apt/lists/partial apt/cache/archives/partial
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >apt/sources
		apt=(apt-get -qq -o Dir::Etc::SourceList="$PWD/apt/sources" -o Dir::Etc::SourceParts=- -o APT::Sandbox::User=root
			-o Dir::State::Lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache"
			-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
		"${apt[@]}" update >&2 || exit 3
		"${apt[@]}" download "$@" >&2 || exit 3
		for deb in *.deb; do dpkg-deb -x "$deb" x; done
		mkdir -p root/lib64 root/$lib
		cp -L x/$lib/ld-linux-x86-64.so.2 root/lib64/
		"$make"
		rm -rf "$cache/$name"-*
		mv -T root "$dir"
	fi
	echo "$dir"
}

# copy_programs FILE... copies programs, with the shared libraries that they need.
copy_programs() {
	local p needs
	for p; do
		install -D -m 755 "x/$p" "root/$p"
		needs=$(x/$lib/ld-linux-x86-64.so.2 --library-path "x/$lib${library_path:+:$library_path}" --list "x/$p")
		case $needs in *"not found"*) echo "$p: $needs" >&2; exit 1 ;; esac
		sed -n "s,.* => \(x/$lib/[^/]*\) .*,\1,p" <<<"$needs" | xargs -r cp -Lt root/$lib/
	done
}

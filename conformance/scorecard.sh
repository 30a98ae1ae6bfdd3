#!/bin/sh
# Writes docs/scorecard.md: all that `conformance` has to say of a directory of plugins, beside the reference's.
#   conformance/scorecard.sh PROGRAM DIR REFERENCE OUT
# Exit status 0 only if DIR passes everything; the reference is only told about. Its crashes take an hour, so they are told
# from the report that is kept; with CRASH_REFERENCE=1 they are run, and that report made anew.
set -eu
tool=$1 dir=$2 reference=$3 out=$4
known=${0%/*}/cases/run/reference-1.1.1.json
kept=${0%/*}/cases/crash/reference-1.1.1.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
status=0

# The report in a file, its headings two levels down; progress on stderr.
report() {
	name=$1
	shift
	echo "scorecard: $name" >&2
	rc=0
	"$tool" "$@" >"$work/$name" || rc=$?
	[ "$rc" -lt 2 ] || { echo "scorecard: $name could not be run" >&2; exit 2; }
	sed -i 's/^#/###/' "$work/$name"
}
judged() {
	report "$@"
	[ "$rc" = 0 ] || { echo "scorecard: $name FAILED" >&2; status=1; }
}

judged run-ours run --bin-dir "$dir" --strict --format markdown
judged crash-ours crash --bin-dir "$dir"
judged load-ours load --bin-dir "$dir" --against "$reference" --pods 100 --parallel 8
judged diff diff --bin-dir "$dir" --against "$reference"
report run-reference run --bin-dir "$reference" --known "$known" --format markdown
if [ -n "${CRASH_REFERENCE:-}" ]; then
	report crash-reference crash --bin-dir "$reference"
	cp "$work/crash-reference" "$kept"
fi
sed -n '/^plugin  *verb/,$p' "$kept" >"$work/crash-reference"

text() { printf '\n```\n'; cat "$work/$1"; printf '```\n'; }
{
	cat <<-'HEAD'
		# Scorecard
		What [conformance](conformance.md) says of this project's plugins and, beside them, of Debian's reference plugins 1.1.1.
		Written by `make conformance`; the figures are of one run of it, but for those of the reference's crashes.

		## This project's plugins
		### The specification: `conformance run --strict`
	HEAD
	sed '/^### CNI conformance$/d' "$work/run-ours"
	printf '\n### Killed and failed at every system call: `conformance crash`\n'
	text crash-ours
	printf '\n### Many pods: `conformance load --pods 100 --parallel 8`, the reference in the same rounds\n'
	text load-ours
	printf '\n### Beside the reference: `conformance diff`\n'
	text diff
	cat <<-'HEAD'

		## The reference, 1.1.1
		It is of the time before spec 1.1.0: GC, STATUS and 1.1.0 itself do not apply. Each failure was looked at; the last
		column says why it is the plugin's and not the case's.

		### The specification: `conformance run`
	HEAD
	sed '/^### CNI conformance$/d' "$work/run-reference"
	cat <<-TAIL

		### Killed and failed at every system call: \`conformance crash\`
		In a run of its own (\`CRASH_REFERENCE=1 make conformance\` repeats it). Everything it found, with the call it was killed
		after or that failed, is in [${kept##*/}](../$kept).
	TAIL
	text crash-reference
} >"$out.new"
mv "$out.new" "$out"
exit $status

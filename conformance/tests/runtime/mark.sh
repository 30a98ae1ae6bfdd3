# A plugin that leaves one file per attachment, and passes the result on.
dir=${0%/*}/.. type=${0##*/}
mark=$dir/marks/$type-$CNI_CONTAINERID-$CNI_IFNAME
read -r conf
case $CNI_COMMAND in
ADD)
	: >"$mark"
	version=${conf#*\"cniVersion\":\"} version=${version%%\"*}
	prev=${conf#*\"prevResult\":}
	case $prev in
	"$conf") echo "{\"cniVersion\": \"$version\"}" ;;
	*) echo "${prev%,\"type\":*}" ;;
	esac
	;;
DEL) rm -f "$mark" ;;
esac

# Stands before a plugin, found first in CNI_PATH under its name: notes the call and lets it go wrong, once, as the
# files in `faults` say. `VERB-refuse-TYPE`: an error, and nothing is done. `VERB-killed-TYPE`: all is done, but nobody
# learns of it.
dir=${0%/*} type=${0##*/}
echo "$CNI_COMMAND $type" >>"$dir/calls"
refuse=$dir/faults/$CNI_COMMAND-refuse-$type
if [ -e "$refuse" ]; then
	rm "$refuse"
	echo '{"code": 111, "msg": "refused", "details": "by the gate"}'
	exit 1
fi
killed=$dir/faults/$CNI_COMMAND-killed-$type
if [ -e "$killed" ]; then
	rm "$killed"
	"$dir/real/$type" >/dev/null
	kill -9 $$
fi
exec "$dir/real/$type"

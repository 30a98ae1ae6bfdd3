#!/bin/bash
# Stands where the runtime looks for a plugin: runs the real one and notes the call, one line each, tab-separated:
# plugin, verb, container, interface, netns, exit status, microseconds.
begin=${EPOCHREALTIME/[.,]/}
"/opt/cni/plugins/${0##*/}"
status=$?
end=${EPOCHREALTIME/[.,]/}
printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${0##*/}" "${CNI_COMMAND:-}" "${CNI_CONTAINERID:-}" "${CNI_IFNAME:-}" \
    "${CNI_NETNS:-}" "$status" "$((end - begin))" >>/run/cni-calls
# A gate that is shut keeps the runtime waiting, with the work done.
gate=/run/gate/${0##*/}
if [ "${CNI_COMMAND:-}" = ADD ] && [ -e "$gate" ]; then flock --shared "$gate" true; fi
exit "$status"

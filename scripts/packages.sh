#!/bin/sh
# SPDX-License-Identifier: MIT
# Sees to it that Debian packages are there: installs the missing ones if it may, else names them
# in one line and exits with status 2. Usage: packages.sh PACKAGE...
missing=
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q ' installed$' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -eq 0 ] && DEBIAN_FRONTEND=noninteractive \
	apt-get install -qq -y --no-install-recommends $missing > /dev/null 2>&1; then
	exit 0
fi
echo "missing packages:$missing (as root: apt-get install$missing)" >&2
exit 2

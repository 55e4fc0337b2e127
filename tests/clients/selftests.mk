# SPDX-License-Identifier: MIT
# The KVM selftests of Debian's linux-source-6.1 (139 MB, taken by apt-get download; ten minutes).

.PHONY: check-selftests
check-selftests: all
	$(Q)tests/clients/selftests.sh $B/anykvm $B/selftests

# SPDX-License-Identifier: MIT
# The KVM selftests of Debian's linux-source-6.1 (139 MB, taken by apt-get download): all that can run,
# ten minutes; the core set alone, two minutes.

.PHONY: check-selftests check-selftests-core
check-selftests: all
	$(Q)tests/clients/selftests.sh $B/anykvm $B/selftests
check-selftests-core: all
	$(Q)tests/clients/selftests.sh $B/anykvm $B/selftests core

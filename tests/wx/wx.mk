# SPDX-License-Identifier: MIT
# No page is ever writable and executable: what suites with guests run their programs under.

$B/tests/wx/wx: $B/tests/wx/wx.o
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $<

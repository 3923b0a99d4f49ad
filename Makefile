# `make` builds, `make test` passes every test and installs what that needs.

GO = go
SOAK = 1

.PHONY: build install uninstall test check setup soak bench microbench fuzz clean

build:
	$(GO) build -o bin/containerfs ./cmd/containerfs

# -count=1: go's cache does not see that tests/ depends on the built command.
# -p 1: one package at a time, since they share the host's processes and tids; one
# of them has tids used again at will.
test: setup check
	$(GO) test -race -count=1 -p 1 -timeout 25m ./...

# vet compiles everything, for the architectures too that no test is run on: words of
# 32 bits overflow there.
check:
	! $$($(GO) env GOROOT)/bin/gofmt -l . | grep .
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...
	GOARCH=386 $(GO) vet ./...
	$(GO) tool staticcheck ./...

setup:
	tests/setup

# The tests at full size and for as long as they want.
soak: setup
	SOAK=$(SOAK) $(GO) test -race -count=1 -p 1 -timeout 12h ./...

# containerfs beside diod and a floor, in one run: see tests/load. What it writes is the
# README's. bin/load -help says how to measure a part of it.
BENCH_TIME = 200ms
BENCH_REPS = 5
bench: build
	$(GO) build -o bin/load ./tests/load
	bin/load -time $(BENCH_TIME) -reps $(BENCH_REPS) -plot tests/load/bench.svg -table tests/load/bench.md

# The parts by themselves.
microbench:
	$(GO) test -run '^$$' -bench . -benchmem -p 1 ./...

# Every fuzz target for FUZZTIME; go runs one of one package at a time.
FUZZTIME = 30s
fuzz:
	@set -e; for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

clean:
	rm -rf bin

# Where things go. mount(8) looks for its helpers in /sbin alone.
PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
COMPLETIONDIR = $(PREFIX)/share/bash-completion/completions
UNITDIR = $(PREFIX)/lib/systemd/system
MOUNTDIR = /sbin
SYSCONFDIR = /etc
DESTDIR =

# A config file that is there stays.
install: build
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(MANDIR) $(COMPLETIONDIR) $(UNITDIR) $(MOUNTDIR) $(SYSCONFDIR))
	install -m 755 bin/containerfs $(DESTDIR)$(BINDIR)/containerfs
	ln -sf $(BINDIR)/containerfs $(DESTDIR)$(MOUNTDIR)/mount.containerfs
	bin/containerfs man $(DESTDIR)$(MANDIR)
	bin/containerfs completion bash > $(DESTDIR)$(COMPLETIONDIR)/containerfs
	for f in containerfs.service containerfs.socket; do \
		sed 's,/usr/bin/,$(BINDIR)/,; s,/etc/containerfs,$(SYSCONFDIR)/containerfs,' cmd/containerfs/systemd/$$f > $(DESTDIR)$(UNITDIR)/$$f && \
		chmod 644 $(DESTDIR)$(UNITDIR)/$$f || exit 1; \
	done
	test -e $(DESTDIR)$(SYSCONFDIR)/containerfs.toml || \
		install -m 644 cmd/containerfs/systemd/containerfs.toml $(DESTDIR)$(SYSCONFDIR)/containerfs.toml

# What install has put there; a config file and a state directory stay.
uninstall:
	rm -f $(addprefix $(DESTDIR),$(BINDIR)/containerfs $(MOUNTDIR)/mount.containerfs $(COMPLETIONDIR)/containerfs \
		$(addprefix $(MANDIR)/,man1/containerfs.1 man7/containerfs-files.7 man8/containerfs-serve.8 man8/mount.containerfs.8) \
		$(addprefix $(UNITDIR)/,containerfs.service containerfs.socket))

# Podwire: `make` lists what there is.

PLUGINS := bridge loopback host-local overlay flannel
TOOLS   := cnitool
AGENTS  := overlayd
UNITS   := podwire-gc.service podwire-gc.timer

DESTDIR :=
BINDIR  := /opt/cni/bin
TOOLDIR := /usr/local/bin
UNITDIR := /usr/local/lib/systemd/system

# Static executables. The flags go to an explicit target, the host's own, because procedural macros and build scripts
# must not get them: those are loaded by the compiler.
HOST    = $(shell rustc -vV | sed -n 's/^host: //p')
OUT     = $(or $(CARGO_TARGET_DIR),target)/$(HOST)
STATIC  = -C target-feature=+crt-static
# What rust-lld, the toolchain's own linker on x86-64, takes off a static executable: 110 KB.
SMALL-x86_64-unknown-linux-gnu = $(patsubst %,-C link-arg=-Wl$(comma)%,--icf=all --pack-dyn-relocs=relr -znoseparate-code -O2)
# What it takes off one that neither unwinds nor looks at its own stack, as an error of anyhow's does: 160 KB more.
NO-UNWIND-x86_64-unknown-linux-gnu = -C link-arg=-Wl,--no-eh-frame-hdr -C link-arg=-Wl,-T,plugins/small.ld
comma   := ,
BUILD   = RUSTFLAGS='$(STATIC) $(SMALL-$(HOST)) $(1)' cargo build --locked --target $(HOST)

# Debian packages, each behind the file that shows it is there.
NEEDS := \
	/usr/bin/cc=gcc \
	/usr/include/stdio.h=libc6-dev \
	/usr/sbin/ip=iproute2 \
	/usr/sbin/sysctl=procps \
	/usr/bin/ping=iputils-ping \
	/usr/sbin/nft=nftables \
	/usr/sbin/iptables=iptables \
	/usr/sbin/conntrack=conntrack \
	/usr/bin/strace=strace \
	/usr/bin/protoc=protobuf-compiler \
	/usr/include/google/protobuf/empty.proto=libprotobuf-dev \
	/usr/bin/etcd=etcd-server \
	/usr/bin/etcdctl=etcd-client \
	/usr/bin/iperf3=iperf3 \
	/usr/bin/openssl=openssl \
	/usr/bin/qemu-system-x86_64=qemu-system-x86 \
	/usr/bin/containerd=containerd \
	/usr/sbin/runc=runc \
	/usr/bin/podman=podman \
	/usr/share/doc/busybox-static=busybox-static \
	/usr/lib/cni/bridge=containernetworking-plugins

# `test` and `demo` need their prerequisites in the order written.
.NOTPARALLEL:
.PHONY: help build install uninstall deps demo test bench conformance fuzz clean
.DEFAULT_GOAL := help

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

build: ## Executables in dist/bin (which can serve as a CNI_PATH): plugins and tools static, the agent not
	$(call BUILD,$(NO-UNWIND-$(HOST))) --profile plugin $(patsubst %,--package %,$(filter-out flannel,$(PLUGINS)))
	$(BUILD) --profile plugin $(TOOLS:%=--package %)
	@cp -f $(OUT)/plugin/overlay $(OUT)/plugin/flannel # the same under the name that configurations have
	cargo build --locked --profile agent $(patsubst %,--package %,$(AGENTS))
	@mkdir -p dist/bin
	@set -e; for program in $(PLUGINS) $(TOOLS); do \
		! ldd $(OUT)/plugin/$$program 2>/dev/null | grep '=>' || { echo "$$program is not static" >&2; exit 1; }; \
		cp $(OUT)/plugin/$$program dist/.$$program; \
		mv -f dist/.$$program dist/bin/$$program; \
	done; \
	for program in $(AGENTS); do \
		cp $(or $(CARGO_TARGET_DIR),target)/agent/$$program dist/.$$program; \
		mv -f dist/.$$program dist/bin/$$program; \
	done
	@ls -l dist/bin

# Each file whole at every moment: a runtime may be calling what is being replaced.
PUT = put() { \
	mkdir -p "$$3"; \
	new=$$(mktemp "$$3/.$${1\#\#*/}.XXXXXX"); \
	trap 'rm -f "$$new"' EXIT INT TERM; \
	cp "$$1" "$$new"; \
	chmod "$$2" "$$new"; \
	sync "$$new"; \
	cmp "$$1" "$$new"; \
	mv -f "$$new" "$$3/$${1\#\#*/}"; \
	echo "$$3/$${1\#\#*/}"; \
}

install: ## Plugins into $(DESTDIR)$(BINDIR), cnitool into $(TOOLDIR), its timer into $(UNITDIR) (run `make build` first)
	@for program in $(PLUGINS) $(TOOLS) $(AGENTS); do \
		[ -x dist/bin/$$program ] || { echo "dist/bin/$$program is missing: run \`make build\` first" >&2; exit 1; }; \
	done
	@set -e; $(PUT); \
	for plugin in $(PLUGINS); do put dist/bin/$$plugin 755 "$(DESTDIR)$(BINDIR)"; done; \
	for tool in $(TOOLS) $(AGENTS); do put dist/bin/$$tool 755 "$(DESTDIR)$(TOOLDIR)"; done; \
	for unit in $(UNITS); do put libcni/cnitool/systemd/$$unit 644 "$(DESTDIR)$(UNITDIR)"; done

uninstall: ## Remove them again
	rm -f $(PLUGINS:%=$(DESTDIR)$(BINDIR)/%) $(TOOLS:%=$(DESTDIR)$(TOOLDIR)/%) $(AGENTS:%=$(DESTDIR)$(TOOLDIR)/%) $(UNITS:%=$(DESTDIR)$(UNITDIR)/%)

deps: ## Install the Debian packages that build, demo, test and bench need, if any is missing
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust, see https://rustup.rs' >&2; exit 1; }
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup -q component add rustfmt clippy
	@missing=; for need in $(NEEDS); do [ -e "$${need%%=*}" ] || missing="$$missing $${need#*=}"; done; \
	[ -n "$$missing" ] || { echo 'deps: all there'; exit 0; }; \
	command -v apt-get >/dev/null || { echo "deps: not a Debian; this needs what Debian calls$$missing" >&2; exit 1; }; \
	as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	echo "deps: installing$$missing"; \
	$$as_root apt-get -qq update && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $$missing >/dev/null || \
	{ echo "deps: could not install$$missing" >&2; exit 1; }

demo: ## Two pods under a private containerd, and three nodes with overlayd: pings, what was made, nothing left (needs root)
	@[ "$$(id -u)" = 0 ] || { echo 'The demo makes namespaces and runs containerd, which needs root:' \
		'sudo --preserve-env=PATH make demo' >&2; exit 1; }
	@$(MAKE) --no-print-directory deps build
	@cargo build --locked --quiet --package conformance --bin demo
	@$(or $(CARGO_TARGET_DIR),target)/debug/demo --plugins dist/bin

test: deps build ## Format, lints and every test (root only where a real containerd is driven)
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	TESTKIT_BIN_DIR=$(CURDIR)/dist/bin cargo test --locked --workspace --no-fail-fast

bench: deps build ## Ours, the reference plugins and the kernel's floor in one interleaved run
	$(BUILD) --release --package bench
	$(OUT)/release/bench --bin-dir dist/bin --check

# cargo-fuzz, and what it needs to work with a stable compiler; without a sanitizer, as there is next to no unsafe code.
# Fat LTO of eleven executables would take an hour.
FUZZ_ROOT     = $(CURDIR)/target/tools
FUZZ_BUILD    = target/fuzz/build
FUZZ_SECONDS := 60
FUZZ_RUNS    := -1
FUZZ_TARGETS  = $(notdir $(wildcard fuzz/corpus/*))
FUZZ_VERSION := 0.13.2

fuzz: NEEDS += /usr/bin/c++=g++ # libFuzzer is C++
fuzz: deps ## Each fuzz target for FUZZ_SECONDS=60, or FUZZ_RUNS=N inputs; FUZZ_TARGETS='config store' for some
	@[ -x $(FUZZ_ROOT)/bin/cargo-fuzz ] || \
		cargo install --quiet --locked --root $(FUZZ_ROOT) --version $(FUZZ_VERSION) cargo-fuzz
	@set -e; \
	export PATH="$(FUZZ_ROOT)/bin:$$PATH" RUSTC_BOOTSTRAP=1 \
		CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none; \
	TMPDIR=$$(mktemp -d -p "$$([ ! -d /dev/shm ] || echo /dev/shm)"); export TMPDIR; trap 'rm -rf "$$TMPDIR"' EXIT; \
	limit=-max_total_time=$(FUZZ_SECONDS); [ $(FUZZ_RUNS) -lt 0 ] || limit=-runs=$(FUZZ_RUNS); \
	for target in $(FUZZ_TARGETS); do \
		mkdir -p target/fuzz/corpus/$$target; \
		cargo fuzz run --sanitizer none --features libfuzzer --target-dir $(FUZZ_BUILD) $$target \
			target/fuzz/corpus/$$target fuzz/corpus/$$target -- \
			$$limit -timeout=1 -rss_limit_mb=100 -max_len=4096 -print_final_stats=1; \
	done

conformance: deps build ## Judge the plugins by spec, crashes, load and beside the reference; writes docs/scorecard.md (20 minutes)
	cargo build --locked --package conformance --bin conformance
	conformance/scorecard.sh $(or $(CARGO_TARGET_DIR),target)/debug/conformance dist/bin /usr/lib/cni docs/scorecard.md

clean: ## Remove everything built
	cargo clean
	rm -rf dist

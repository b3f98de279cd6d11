# The front door. Meson and Ninja do the work; these targets install what they need on a fresh Debian 12 first.
BUILD ?= build
export LHYVE_BUILD := $(BUILD)

all: setup
	@tools/build.sh $(BUILD)

help:
	@echo 'make boot         build, make a Debian image (cached) and boot it to its login prompt'
	@echo 'make test         all tests of CI'
	@echo 'make              build into $(BUILD)/'
	@echo 'make install      install to PREFIX (/usr/local; the build folder remembers it), below DESTDIR'
	@echo 'make test-kvm     the suite of the KVM engine, in a nested machine where the host has no /dev/kvm'
	@echo 'make test-guests  the long runs of real guests'
	@echo 'make bench        the benchmarks, side by side with QEMU and the host'
	@echo 'make fuzz         the differential tester and the fuzzers, until stopped'
	@echo 'make clean        remove $(BUILD)*/; make distclean also the cached image'

setup:
	@tools/setup.sh build
boot: setup
	@LHYVE_TARGET=programs tools/build.sh $(BUILD)
	@tools/boot.sh; s=$$?; case $$s in \
	  0) echo '== the guest rebooted (lhyve: status 0); make boot again, or let a loop do it: while tools/boot.sh; do :; done' ;; \
	  1) echo '== the guest powered off (lhyve: status 1)' ;; \
	  *) echo "== tools/boot.sh: status $$s" >&2; exit $$s ;; esac
test:
	@tools/test.sh
test-kvm: setup
	@tools/test-kvm.sh
test-guests: all
	@tools/test-guests.sh
bench: all
	@bench/run.sh
fuzz: all
	@fuzz/run.sh
install: all
	@$(if $(PREFIX),meson configure $(BUILD) -Dprefix=$(PREFIX) && ninja -C $(BUILD) >&2 &&) meson install -C $(BUILD) --no-rebuild
clean:
	rm -rf build build-*
distclean: clean
	rm -rf "$${LHYVE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/lhyve}"

.PHONY: all help setup boot test test-kvm test-guests bench fuzz install clean distclean

# SPDX-License-Identifier: MIT
# The everyday commands; each is a line or two over scripts/ and CMake.
BUILD  ?= build
PREFIX ?= /usr/local

.PHONY: all demo test test-network test-browser bench interop sanitize fuzz check install clean help

all:
	@scripts/install-deps build
	@scripts/build $(BUILD)

demo:
	@scripts/install-deps build bench
	@scripts/build $(BUILD) -DSPOKE_BUILD_BENCH=ON
	@$(BUILD)/bin/spoke demo

test:
	@scripts/install-deps build test
	@scripts/build $(BUILD) -DSPOKE_BUILD_TESTS=ON
	@scripts/run-tests $(BUILD)

test-network:
	@scripts/install-deps build test
	@scripts/build $(BUILD) -DSPOKE_BUILD_TESTS=ON
	@SPOKE_TEST_TRANSPORTS=tls,ws,wss scripts/run-tests $(BUILD) \
		-R '^(tls|hostile|(conformance|stream|mux|select|channel|ports)\.(uring|poll)$$|package.gateway)'

test-browser:
	@scripts/install-deps build test browser
	@scripts/build $(BUILD) -DSPOKE_BUILD_TESTS=ON
	@scripts/run-tests $(BUILD) -R '^js'

bench:
	@scripts/install-deps build bench
	@scripts/build $(BUILD) -DSPOKE_BUILD_BENCH=ON
	@$(BUILD)/bin/spoke bench all --peers

interop:
	@scripts/install-deps build test
	@scripts/build $(BUILD) -DSPOKE_BUILD_TESTS=ON
	@scripts/run-tests $(BUILD) -R '^interop'; code=$$?; \
		scripts/interop-table $(BUILD) && exit $$code

sanitize:
	@scripts/install-deps build test
	@scripts/sanitize address
	@scripts/sanitize thread

fuzz:
	@scripts/install-deps build fuzz
	@scripts/fuzz --coverage

check:
	@scripts/install-deps build test bench check
	@scripts/check

install:
	@scripts/install-deps build
	@scripts/build $(BUILD)
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	rm -rf build build-*

help:
	@echo 'make            build everything into $(BUILD)/'
	@echo 'make demo       two processes talk, a nanomsg program answers, and what it costs'
	@echo 'make test       build and run all tests'
	@echo 'make test-network  those over tls+tcp, ws and wss, also what make test leaves out of them'
	@echo 'make test-browser  the tests of the client for browsers, also in Chromium (300 MB, which it installs)'
	@echo 'make bench      measure beside the raw kernel and every peer library installed'
	@echo 'make interop    the tests against nanomsg and NNG, and a table of what works with them'
	@echo 'make sanitize   all tests under address+undefined and thread sanitizers'
	@echo 'make fuzz       each fuzz target for FUZZ_SECONDS=60, then coverage (clang)'
	@echo 'make check      clang-format, include borders, clang-tidy, cppcheck'
	@echo 'make install    into PREFIX=/usr/local (DESTDIR works too)'
	@echo 'make clean      remove every build directory'

# make run: from a clone to a running demo. make test: everything, from nothing.
PACKAGES = mosquitto mosquitto-clients libmosquitto-dev libpq-dev libssl-dev liblz4-dev libsimdjson-dev openssl \
           pkg-config postgresql
# For the tests only: promtool and systemd-analyze check what packaging/ holds, and the naive fold is Python.
TEST_PACKAGES = prometheus systemd python3

.PHONY: run build test bench packages install

run: build
	.build/release/refold run --demo

build: packages
	swift build -c release --product refold

test: PACKAGES += $(TEST_PACKAGES)
test: packages
	swift build --build-tests
	swift test --no-parallel

# Of what `make build` made: make build && sudo make install
install:
	install -D -m 0755 .build/release/refold $(DESTDIR)/usr/local/bin/refold
	install -D -m 0644 packaging/refold.service $(DESTDIR)/etc/systemd/system/refold.service
	install -D -m 0644 README.md $(DESTDIR)/usr/local/share/doc/refold/README.md

# Beside peers and limits; writes bench/RESULTS.md. About fifteen minutes on a quiet machine.
bench: PACKAGES += python3-venv g++
bench: packages
	swift build -c release
	$(MAKE) -s -C bench
	python3 bench/run.py

# Installs what is missing, and asks for sudo only then.
packages:
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y --no-install-recommends $$missing; fi

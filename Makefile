# make run: from a clone to a running demo. make test: everything, from nothing.
PACKAGES = mosquitto mosquitto-clients libmosquitto-dev libpq-dev libssl-dev liblz4-dev libsimdjson-dev openssl \
           pkg-config postgresql prometheus python3

.PHONY: run build test packages

run: build
	.build/release/refold run --demo

build: packages
	swift build -c release --product refold

test: packages
	swift build --build-tests
	swift test

# Installs what is missing, and asks for sudo only then.
packages:
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y --no-install-recommends $$missing; fi

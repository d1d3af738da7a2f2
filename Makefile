# make run: from a clone to a running demo. make test: everything, from nothing.
PACKAGES = mosquitto mosquitto-clients libmosquitto-dev libpq-dev libssl-dev liblz4-dev zlib1g-dev libsimdjson-dev \
           libcurl4-openssl-dev openssl pkg-config postgresql
# For the tests only: promtool and systemd-analyze check what packaging/ holds, the naive fold is Python, and the pages
# are used in a real browser. The ledger soak runs two more brokers.
SOAK_PACKAGES = rabbitmq-server nats-server python3 gcc
TEST_PACKAGES = prometheus systemd pgbouncer curl python3 python3-cryptography python3-venv chromium chromium-driver \
                gnutls-bin $(SOAK_PACKAGES)

.PHONY: format lint run test-threads demo-ota demo-certs demo-jobs build test bench fuzz packages install soak soak-ledger rewrite-cases

run: build
	.build/release/refold run --demo

# Two rollouts to 5,000 simulated devices, one of a bad build, with the daemon killed in the middle of both.
demo-ota: PACKAGES += python3
demo-ota: build
	python3 bench/demo_ota.py

# 200 devices with certificates at a broker that requires them: one is revoked, and all are renewed onto a new CA.
demo-certs: PACKAGES += python3
demo-certs: build
	python3 bench/demo_certs.py

# 10,000 certificates renewed by five workers, with the daemon and workers killed (kill -9) for a minute.
demo-jobs: PACKAGES += python3
demo-jobs: build
	python3 bench/demo_jobs.py

build: packages
	swift build -c release --product refold
	packaging/find-planted-bugs .build/release/refold

test: PACKAGES += $(TEST_PACKAGES)
test: packages lint
	$(MAKE) -s .build/schemathesis/bin/schemathesis .build/pkilint/bin/lint_crl
	swift build --build-tests
	Tests/run

# The toolchain's formatter, by .swift-format. Another version formats otherwise, so lint passes it over.
SWIFT_FILES = Package.swift Sources Tests Plugins Fuzz
FORMAT_VERSION = 6.3
format:
	swift format -i -p -r $(SWIFT_FILES)
lint:
	@case "$$(swift format --version)" in \
	  $(FORMAT_VERSION)*) swift format lint --strict -p -r $(SWIFT_FILES) || { echo "run: make format"; exit 1; };; \
	  *) echo "not linted: swift format is not $(FORMAT_VERSION)";; esac

# Data races while the daemon starts, runs and stops, with the thread sanitizer. It does not know that Swift's Mutex
# orders accesses (on Linux it is a futex), so that suites that contend for one report what it guards.
test-threads: PACKAGES += $(TEST_PACKAGES)
test-threads: packages
	swift test --sanitize thread --scratch-path .build/tsan --no-parallel --filter 'DaemonTests|ThreadingTests'

# Makes up requests by schemas/openapi.yaml, and looks whether the answers are as it says.
.build/schemathesis/bin/schemathesis:
	python3 -m venv .build/schemathesis
	.build/schemathesis/bin/pip install -q --disable-pip-version-check schemathesis==4.32.5 hypothesis==6.170.15

# Checks certificates and CRLs against RFC 5280.
.build/pkilint/bin/lint_crl:
	python3 -m venv .build/pkilint
	.build/pkilint/bin/pip install -q --disable-pip-version-check pkilint==0.13.3

# The rows that today's folds make of replay/'s cases become what is expected of tomorrow's. Read the difference.
rewrite-cases:
	REFOLD_REWRITE_CASES=1 swift test --filter ReplayTests
	git diff --stat replay

# Hours of what `make test` does in a minute: simulated worlds without end, every bit of a segment, every subset of the
# sectors of a torn tail. SOAK_MINUTES is for the worlds; the rest takes what it takes. The worlds run the release code,
# without planted bugs; the tests plant bugs, and are built elsewhere, so that the product is never linked with them.
SOAK_MINUTES ?= 120
soak: packages
	swift build -c release --product refold-sim
	.build/release/refold-sim --seed $$(date +%s)000 --minutes $(SOAK_MINUTES) --steps 5000 --quiet
	.build/release/refold-sim campaigns --seeds 1..200000 --quiet
	.build/release/refold-sim certificates --seeds 1..10000 --quiet
	.build/release/refold-sim jobs --seeds 1..10000 --quiet
	REFOLD_SOAK=1 REFOLD_PLANTED_BUGS=1 swift test -c release --scratch-path .build/planted -Xswiftc -enable-testing \
	  --no-parallel --filter SimulationTests

# A fleet with a ledger over Mosquitto, RabbitMQ and nats-server, and faults by seed: SEED=n repeats a schedule.
soak-ledger: PACKAGES += $(SOAK_PACKAGES)
soak-ledger: build
	SOAK_MINUTES=$(SOAK_MINUTES) SEED=$(SEED) python3 bench/soak/soak.py

# Of what `make build` made: make build && sudo make install
install:
	install -D -m 0755 .build/release/refold $(DESTDIR)/usr/local/bin/refold
	install -D -m 0644 packaging/refold.service $(DESTDIR)/etc/systemd/system/refold.service
	install -D -m 0644 packaging/refold-worker@.service $(DESTDIR)/etc/systemd/system/refold-worker@.service
	install -D -m 0644 README.md $(DESTDIR)/usr/local/share/doc/refold/README.md

# Beside peers and limits; writes bench/RESULTS.md. About fifteen minutes on a quiet machine.
bench: PACKAGES += python3-venv g++ golang-cfssl
bench: packages
	swift build -c release
	$(MAKE) -s -C bench
	python3 bench/run.py

# Searches for inputs that break the decoders (libFuzzer, FUZZ_SECONDS each), and keeps those that reach new code.
# What breaks them is left in .build/fuzz/ as crash-…, oom-… or timeout-…
FUZZ_SECONDS ?= 60
# Swift's own handler would end the program before libFuzzer has written the input down.
fuzz: export SWIFT_BACKTRACE = enable=no
fuzz: packages
	for name in payload log evidence; do \
	  program=$$(echo $$name | sed 's/./\U&/')Fuzz; work=.build/fuzz/$$name; \
	  REFOLD_FUZZING=1 swift build -c release --build-path .build/fuzzing --sanitize=fuzzer \
	    -Xswiftc -enable-testing --product $$program || exit 1; \
	  rm -rf $$work/kept && mkdir -p $$work/kept $$work/found && \
	  python3 Fuzz/corpus.py unpack Fuzz/corpus/$$name.base64 $$work/found && \
	  .build/fuzzing/release/$$program -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=5 -rss_limit_mb=512 \
	    -malloc_limit_mb=128 -artifact_prefix=.build/fuzz/ -verbosity=0 -print_final_stats=1 $$work/found && \
	  .build/fuzzing/release/$$program -merge=1 -max_len=2048 -verbosity=0 $$work/kept $$work/found && \
	  python3 Fuzz/corpus.py pack $$work/kept Fuzz/corpus/$$name.base64 || exit 1; \
	done

# Installs what is missing, and asks for sudo only then.
packages:
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y --no-install-recommends $$missing && \
	  for s in rabbitmq-server nats-server; do case "$$missing" in *$$s*) \
	    $$sudo systemctl disable --now $$s >/dev/null 2>&1 || true;; esac; done; fi

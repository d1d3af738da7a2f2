// swift-tools-version: 6.2
// Targets are declared in the order in which data flows: a message enters at the top and leaves at the bottom.
import PackageDescription

/// simdjson and the checksums are unusably slow without optimisation (measured: 0.4 instead of 3.9 M events/s),
/// so these leaf targets are optimised in debug builds too.
let optimisedC: [CSetting] = [.unsafeFlags(["-O2"], .when(configuration: .debug))]
let optimisedCXX: [CXXSetting] = [.unsafeFlags(["-O2"], .when(configuration: .debug))]
/// The simulated disk and the tests of the sources look at every byte: without optimisation they take minutes.
let optimisedSwift: [SwiftSetting] = [.unsafeFlags(["-O"], .when(configuration: .debug))]
/// Bugs that tests plant to prove that the simulation finds them. A release build has none, but for `make soak`, which
/// builds into a folder of its own.
let plantsBugs = Context.environment["REFOLD_PLANTED_BUGS"] == "1"
let plantedBugs: [SwiftSetting] = [
    plantsBugs ? .define("PLANTED_BUGS") : .define("PLANTED_BUGS", .when(configuration: .debug))
]

let package = Package(
    name: "refold",
    products: [
        .executable(name: "refold", targets: ["refold"]),
        .executable(name: "refold-bench", targets: ["RefoldBench"]),
        .executable(name: "refold-sim", targets: ["RefoldSim"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0", traits: [.defaults, "YAML"]),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.11.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
    ],
    targets: [
        // C and C++ libraries, each behind one target
        .systemLibrary(name: "CMosquitto", pkgConfig: "libmosquitto", providers: [.apt(["libmosquitto-dev"])]),
        .systemLibrary(name: "CPostgres", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .target(name: "CPlatform"),
        .target(name: "CChecksum", cSettings: optimisedC),
        .target(name: "CSIMDJSON", cxxSettings: optimisedCXX, linkerSettings: [.linkedLibrary("simdjson")]),

        // digests, hex, JSON strings, seeded random numbers, clocks
        .target(name: "Primitives", dependencies: ["COpenSSL"], swiftSettings: optimisedSwift),

        // what an event is
        .target(name: "EventModel", dependencies: ["Primitives"]),
        // what deciders put on the record, self-describing
        .target(name: "Decisions", dependencies: ["Primitives", "EventModel"]),
        .target(name: "Threading", dependencies: ["Primitives", "CPlatform"]),
        // what the process writes for people: log lines and the output of verbs
        .target(name: "Output", dependencies: ["Primitives", "Threading"]),

        // HTTP client
        .target(name: "HTTPClient", dependencies: ["Threading", "CCurl"]),

        // what lets an outsider check the log: Merkle tree, signed checkpoints, proofs
        .target(name: "Evidence", dependencies: ["Primitives", "EventModel", "COpenSSL"]),

        // what those who decide about campaigns and those who count them must agree on
        .target(name: "CampaignRules", dependencies: ["EventModel", "Decisions"], swiftSettings: optimisedSwift),

        // MQTT → durable log
        .target(
            name: "EventLog",
            dependencies: [
                "Primitives", "EventModel", "Evidence", "Threading", "CLZ4", "CChecksum", "CPlatform",
            ], swiftSettings: plantedBugs),
        // MQTT client over libmosquitto
        .target(name: "MQTT", dependencies: ["CMosquitto", "COpenSSL", "CPlatform", "Threading"]),
        .target(
            name: "Ingest",
            dependencies: [
                "CMosquitto", "COpenSSL", "CPlatform", "Primitives", "EventModel", "Decisions", "Threading", "EventLog",
                "MQTT",
            ], swiftSettings: plantedBugs),

        // log → facts → rows → PostgreSQL
        .target(name: "Decoding", dependencies: ["EventModel", "Decisions", "CSIMDJSON"]),
        .target(
            name: "Projections",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "CampaignRules", "Decoding", "CPlatform",
            ]),
        .target(
            name: "Projecting",
            dependencies: [
                "Primitives", "EventModel", "Evidence", "EventLog", "Decoding", "Projections", "Threading",
            ]),
        // rows on files, beside the log: where folding need not begin at the first event
        .target(
            name: "Snapshots",
            dependencies: [
                "Primitives", "EventModel", "Evidence", "EventLog", "Projections", "Projecting", "CLZ4",
                "CChecksum",
            ]),
        .target(name: "Postgres", dependencies: ["Primitives", "CPostgres", "COpenSSL"]),
        .target(
            name: "PostgresStore", dependencies: ["EventModel", "Projecting", "Projections", "Postgres"],
            plugins: ["EmbedMigrations"]),
        .plugin(name: "EmbedMigrations", capability: .buildTool()),
        // rows as of a position or a time, from snapshots and log; PostgreSQL is not asked
        .target(
            name: "History",
            dependencies: [
                "Primitives", "EventModel", "EventLog", "Decoding", "Projections", "Projecting", "Snapshots",
            ]),
        // tables against the log: rebuilt beside the live ones, exchanged, rolled back, verified
        .target(
            name: "Rebuilding",
            dependencies: [
                "EventModel", "Evidence", "EventLog", "Projections", "Projecting", "Snapshots", "Postgres",
                "PostgresStore",
            ]),
        // recorded messages, published again: to a broker, or into files
        .target(
            name: "Publishing",
            dependencies: ["CMosquitto", "CZlib", "Primitives", "EventModel", "Evidence", "EventLog", "MQTT"]),
        // what happened to a device or campaign, with proofs
        .target(
            name: "Auditing",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "Output", "Evidence", "EventLog", "Decoding", "Projections",
                "Projecting", "Snapshots",
            ]),

        // the tables, read
        .target(name: "Queries", dependencies: ["EventModel", "Decisions", "Postgres", "Threading"]),

        // what "healthy" means, defined once; pure
        .target(name: "Health", dependencies: ["EventModel"]),

        // what an operator says
        .target(
            name: "Settings",
            dependencies: [
                "EventModel",
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "Yams", package: "Yams"),
            ]),

        // a broker and a database of our own, where none is given
        .target(name: "PrivateServices", dependencies: ["Primitives", "Threading", "CPlatform"]),

        // keys, certificates, certificate requests and CRLs
        .target(
            name: "PKI",
            dependencies: [
                "Primitives", "Threading", "COpenSSL", "PrivateServices",
                .product(name: "SwiftASN1", package: "swift-asn1"),
            ], swiftSettings: optimisedSwift),

        // log → decision → log, whatever is decided
        .target(
            name: "Deciding",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "Decoding", "Threading",
                .product(name: "DequeModule", package: "swift-collections"),
            ]),
        // what operators decide, and how they say it
        .target(
            name: "Campaigns",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "CampaignRules", "Decoding", "Deciding",
                .product(name: "HeapModule", package: "swift-collections"),
            ], swiftSettings: optimisedSwift),
        // decided commands → devices
        .target(
            name: "Outbox",
            dependencies: [
                "CMosquitto", "EventModel", "Decisions", "Threading", "MQTT", "Ingest", "Deciding",
                .product(name: "DequeModule", package: "swift-collections"),
            ]),
        // who may use the API
        .target(
            name: "Access",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "Deciding",
            ]),
        // work on a durable queue, decided
        .target(
            name: "Jobs",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "Deciding",
                .product(name: "DequeModule", package: "swift-collections"),
            ], swiftSettings: optimisedSwift + plantedBugs),
        // jobs, handed to workers
        .target(
            name: "Working",
            dependencies: ["Primitives", "EventModel", "Decisions", "Deciding", "Jobs"]),
        // device certificates, authorities and CRLs: decided
        .target(
            name: "Certificates",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "Decoding", "Deciding", "PKI",
                .product(name: "HeapModule", package: "swift-collections"),
            ], swiftSettings: optimisedSwift + plantedBugs),
        // recorded history, decided again under other settings
        .target(
            name: "WhatIf",
            dependencies: [
                "EventModel", "Decisions", "CampaignRules", "EventLog", "Decoding", "Deciding", "Campaigns", "PKI",
                "Certificates",
            ]),
        // certificates, signed
        .target(
            name: "Issuing",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "Threading", "Deciding", "PKI", "Certificates",
                "Jobs", "Working",
            ]),
        // and CRLs put in force at brokers, provably
        .target(
            name: "Enforcement",
            dependencies: [
                "CMosquitto", "COpenSSL", "Primitives", "EventModel", "Decisions", "Threading", "HTTPClient",
                "EventLog", "MQTT", "Ingest", "PrivateServices", "Deciding", "PKI", "Certificates", "Issuing",
            ], swiftSettings: plantedBugs),
        // pages for people, and the API beneath them
        .target(name: "WebPages", exclude: ["Files"], plugins: ["EmbedPages"]),
        .plugin(name: "EmbedPages", capability: .buildTool()),
        .target(
            name: "ControlAPI",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "Deciding", "Access", "CampaignRules", "Campaigns",
                "Health", "PKI", "Certificates", "Issuing", "Jobs", "Working", "WebPages",
                .product(name: "Hummingbird", package: "hummingbird"),
            ]),

        // devices that behave like devices
        .target(
            name: "FleetSimulator",
            dependencies: ["Primitives", "EventModel", "Threading", "PKI", "CMosquitto", "CPlatform"]),

        // the executable: composition root and command line
        .executableTarget(
            name: "refold",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "Threading", "Output", "HTTPClient", "Evidence", "EventLog",
                "MQTT", "Ingest", "Projections", "Projecting", "Snapshots", "Postgres", "PostgresStore", "History",
                "Rebuilding", "Publishing", "Auditing", "Queries", "Health", "Settings", "PrivateServices", "Deciding",
                "Campaigns", "WhatIf", "Outbox", "Access", "PKI", "Certificates", "Issuing", "Jobs", "Working",
                "Enforcement", "ControlAPI", "FleetSimulator",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]),

        // a world in which everything fails, by a seed
        .target(
            name: "Simulation",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "CampaignRules", "Deciding", "Campaigns", "EventLog", "Ingest",
                "Projections", "Projecting", "PKI", "Certificates", "Issuing", "Enforcement", "Jobs",
            ],
            swiftSettings: optimisedSwift + plantedBugs),
        .executableTarget(name: "RefoldSim", dependencies: ["Primitives", "Simulation"]),

        // figures; `bench/` sets them beside peers and limits
        .executableTarget(
            name: "RefoldBench",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "Evidence", "EventLog", "MQTT", "Ingest", "Projections",
                "Projecting", "Postgres", "PostgresStore", "Threading", "Deciding", "Jobs", "Working", "PKI",
                "Certificates", "Issuing", "Enforcement", "FleetSimulator",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),

        // tests, one folder a target
        .target(
            name: "TestSupport", dependencies: ["HTTPClient", "Primitives", "CPlatform", "CMosquitto", "COpenSSL"],
            path: "Tests/TestSupport", exclude: ["clock_shim", "disk_shim"]),
        // counts heap allocations in the tests' executable
        .target(name: "CAllocationCounter", path: "Tests/CAllocationCounter", cSettings: optimisedC),
        .testTarget(
            name: "AllocationTests",
            dependencies: [
                "CMosquitto", "EventModel", "Decisions", "Threading", "EventLog", "MQTT", "Ingest", "Projections",
                "CAllocationCounter",
            ]),
        .testTarget(name: "PrimitivesTests", dependencies: ["Primitives", "COpenSSL"]),
        .testTarget(
            name: "PreconditionTests",
            dependencies: [
                "CampaignRules", "EventLog", "EventModel", "Evidence", "Primitives", "Projections",
            ]),
        .testTarget(name: "EventModelTests", dependencies: ["EventModel"]),
        .testTarget(name: "ThreadingTests", dependencies: ["Threading"]),
        .testTarget(name: "OutputTests", dependencies: ["Primitives", "Output"]),
        .testTarget(name: "HTTPClientTests", dependencies: ["HTTPClient", "TestSupport"]),
        .testTarget(name: "EvidenceTests", dependencies: ["Primitives", "Evidence", "EventModel", "COpenSSL"]),
        .testTarget(
            name: "EventLogTests", dependencies: ["CChecksum", "Primitives", "EventModel", "Evidence", "EventLog"]),
        .testTarget(
            name: "LogCommandTests",
            dependencies: [
                "EventLog", "EventModel", "Evidence", "ProjectionTestSupport", "TestSupport", "refold",
            ]),
        .testTarget(name: "DecodingTests", dependencies: ["EventModel", "Decoding", "Postgres", "TestSupport"]),
        .testTarget(
            name: "ProjectionsTests",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "Decoding", "Projections", "Projecting",
                "Jobs", "Postgres", "PostgresStore", "TestSupport", "ProjectionTestSupport",
            ]),
        .testTarget(
            name: "IngestTests",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "Threading", "EventLog", "MQTT", "Ingest", "TestSupport",
            ]),
        .testTarget(name: "FleetSimulatorTests", dependencies: ["EventModel", "FleetSimulator", "TestSupport"]),
        .testTarget(name: "PostgresTests", dependencies: ["Postgres", "TestSupport"]),
        .target(
            name: "ProjectionTestSupport",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "CampaignRules", "Projecting", "Projections",
            ],
            path: "Tests/ProjectionTestSupport"),
        .testTarget(
            name: "ProjectingTests",
            dependencies: [
                "EventModel", "EventLog", "Projections", "Projecting", "TestSupport", "ProjectionTestSupport",
            ]),
        .testTarget(
            name: "SnapshotsTests",
            dependencies: [
                "Primitives", "EventModel", "Evidence", "EventLog", "Projections", "Projecting", "Snapshots",
                "Deciding", "Campaigns", "ProjectionTestSupport",
            ]),
        .testTarget(
            name: "PostgresStoreTests",
            dependencies: [
                "EventModel", "Projections", "Projecting", "Postgres", "PostgresStore", "TestSupport",
                "ProjectionTestSupport",
            ]),
        .testTarget(
            name: "QueriesTests",
            dependencies: [
                "Queries", "EventModel", "Decisions", "Postgres", "PostgresStore", "TestSupport",
            ]),
        .testTarget(
            name: "HistoryTests",
            dependencies: [
                "EventModel", "EventLog", "Projections", "Projecting", "Snapshots", "History", "ProjectionTestSupport",
            ]),
        .testTarget(
            name: "RebuildTests",
            dependencies: [
                "EventModel", "Threading", "EventLog", "Projections", "Projecting", "Snapshots", "Postgres",
                "PostgresStore", "Rebuilding", "refold", "TestSupport", "ProjectionTestSupport",
            ]),
        .testTarget(name: "PrivateServicesTests", dependencies: ["PrivateServices"]),
        .testTarget(name: "PKITests", dependencies: ["Primitives", "PKI", "COpenSSL"]),
        .testTarget(
            name: "HealthTests",
            dependencies: [
                "Health", "EventModel", .product(name: "Yams", package: "Yams"),
            ]),
        .testTarget(name: "SettingsTests", dependencies: ["Settings"]),
        .testTarget(
            name: "CampaignRulesTests",
            dependencies: [
                "Primitives", "CampaignRules", "EventModel", "Decisions",
            ]),
        .testTarget(
            name: "DecidingTests",
            dependencies: [
                "Primitives", "Deciding", "Access", "Campaigns", "PKI", "Certificates", "EventLog", "EventModel",
                "Decisions", "Threading", "TestSupport",
            ]),
        .testTarget(
            name: "CertificatesTests",
            dependencies: ["Primitives", "EventModel", "Decisions", "Decoding", "Deciding", "PKI", "Certificates"]),
        .testTarget(name: "JobsTests", dependencies: ["EventModel", "Decisions", "Jobs"]),
        .testTarget(
            name: "WorkingTests",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "Deciding", "Jobs", "Working", "TestSupport",
            ]),
        .testTarget(
            name: "IssuingTests",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "EventLog", "Threading", "Deciding", "Jobs", "Working", "PKI",
                "Certificates",
                "Issuing", "TestSupport",
            ]),
        .testTarget(
            name: "CampaignsTests",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "CampaignRules", "EventLog", "Deciding", "Campaigns",
            ]),
        .testTarget(name: "AccessTests", dependencies: ["Deciding", "Access", "EventLog", "EventModel", "Decisions"]),
        .testTarget(
            name: "OutboxTests",
            dependencies: [
                "EventModel", "Decisions", "EventLog", "MQTT", "Ingest", "Campaigns", "Outbox", "TestSupport",
            ]),
        .testTarget(
            name: "EnforcementTests",
            dependencies: [
                "COpenSSL", "Primitives", "EventModel", "Decisions", "Threading", "EventLog", "MQTT", "Ingest",
                "Deciding", "PKI", "Certificates", "Issuing", "Enforcement", "Simulation", "TestSupport",
            ]),
        .testTarget(
            name: "ControlAPITests",
            dependencies: [
                "Primitives", "EventModel", "Decisions", "CampaignRules", "EventLog", "Threading", "Deciding",
                "Campaigns", "Access", "PKI", "Certificates", "Issuing", "Jobs", "Working", "WebPages", "ControlAPI",
                "refold", "TestSupport",
                .product(name: "Yams", package: "Yams"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ]),
        .testTarget(
            name: "SimulationTests",
            dependencies: ["Primitives", "Simulation", "EventLog", "EventModel", "Projections", "Projecting"]),
        .testTarget(
            name: "ReplayTests",
            dependencies: [
                "CZlib", "Primitives", "EventModel", "Decisions", "Evidence", "CampaignRules", "EventLog", "MQTT",
                "Ingest", "Projections", "Projecting", "Snapshots", "Postgres", "PostgresStore", "Rebuilding",
                "Publishing", "Auditing", "Deciding", "Campaigns", "PKI", "Certificates", "WhatIf", "refold",
                "TestSupport", "ProjectionTestSupport",
            ]),
        .testTarget(
            name: "DaemonTests",
            dependencies: [
                "EventLog", "Postgres", "PostgresStore", "Settings", "TestSupport", "Threading", "refold",
            ]),
        .testTarget(
            name: "IntegrationTests",
            dependencies: [
                "Primitives", "EventModel", "HTTPClient", "MQTT", "Postgres", "Enforcement", "refold", "TestSupport",
            ]),
        .testTarget(name: "FuzzTests", dependencies: ["EventModel", "Decisions", "Evidence", "EventLog", "Decoding"]),
        .testTarget(name: "TidyTests", dependencies: ["refold"], swiftSettings: optimisedSwift),
    ],
    swiftLanguageModes: [.v6],
    cxxLanguageStandard: .cxx17
)

// Programs without a main of their own, for libFuzzer: `make fuzz` alone builds them, with everything testable, which a
// release build is not otherwise.
if Context.environment["REFOLD_FUZZING"] != nil {
    package.targets.removeAll { $0.name == "FuzzTests" }
    package.targets.append(
        .target(
            name: "FuzzBodies", dependencies: ["EventModel", "Decisions", "Evidence", "EventLog", "Decoding"],
            path: "Tests/FuzzTests/Bodies"))
    for name in ["PayloadFuzz", "LogFuzz", "EvidenceFuzz"] {
        package.targets.append(
            .executableTarget(
                name: name, dependencies: ["FuzzBodies"], path: "Fuzz/\(name)",
                swiftSettings: [.unsafeFlags(["-parse-as-library"])]))
    }
}

import ArgumentParser
import ControlAPI
import Foundation

struct BrokerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "broker", abstract: "List brokers with their alarms, and acknowledge alarms.",
        subcommands: [List.self, Acknowledge.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List all brokers and what is wrong with them.")
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let status = try JSONDecoder().decode(
                SystemStatus.self, from: try await daemon.asking { try await $0.get("/api/v1/status").body })
            let names = Set(status.brokers.map(\.name))
            let problems = status.problems.filter { $0.object.map(names.contains) == true }
            if daemon.json {
                for broker in status.brokers {
                    let own = problems.filter { $0.object == broker.name }
                    print(
                        jsonLine([
                            "name": broker.name, "connected": broker.connected, "problems": own.map(Self.object),
                        ]))
                }
                return
            }
            for broker in status.brokers {
                let own = problems.filter { $0.object == broker.name }
                print("\(broker.name): \(broker.connected ? "connected" : "not connected")")
                for problem in own {
                    let since = problem.since.map { " (since \($0))" } ?? ""
                    print("  \(problem.code)\(since): \(problem.text)")
                }
            }
        }

        private static func object(_ problem: SystemStatus.Problem) -> [String: Any] {
            var object: [String: Any] = [
                "code": problem.code, "text": problem.text, "acknowledgeable": problem.isAcknowledgeable,
            ]
            object["since"] = problem.since
            return object
        }
    }

    struct Acknowledge: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Acknowledge a broker's alarms.",
            discussion: """
                A lost session, a takeover and dropped messages stay in `refold status` until an operator acknowledges \
                them. The log records the operator and the reason. Example: \
                refold broker acknowledge main --reason "broker reinstalled, gap of 40 s accepted"
                """)
        @Argument(help: "The broker's name.") var name: String
        @Option(help: "Reason, recorded in the log.") var reason: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let answer = try await daemon.asking {
                try await $0.post("/api/v1/brokers/\(DaemonClient.escape(name))/acknowledge", ["reason": reason])
            }
            let object = try answer.object()
            if daemon.json { return print(jsonLine(object)) }
            let position = (object["position"] as? NSNumber).map(\.stringValue) ?? "?"
            print("alarms of broker \(name) acknowledged at position \(position)")
        }
    }
}

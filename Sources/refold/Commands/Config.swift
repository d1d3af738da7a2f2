import ArgumentParser
import Foundation
import Settings

struct Config: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Look at the settings.", subcommands: [Check.self])

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check",
            abstract: "Print the settings in force and where each came from.",
            discussion: "Exit code 0 when they are valid, 2 when not. Secrets are shown as ***.")

        @OptionGroup var options: SettingsOptions
        @Flag(help: "One JSON object a setting.") var json = false

        func run() async throws {
            let settings = try await options.load()
            let width = settings.resolved.map(\.setting.key.count).max() ?? 0
            for item in settings.resolved {
                if json {
                    let object = [
                        "key": item.setting.key, "value": item.shown, "origin": item.origin, "help": item.setting.help,
                    ]
                    let data = try JSONSerialization.data(
                        withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
                    print(String(decoding: data, as: UTF8.self))
                } else {
                    let key = item.setting.key.padding(toLength: width, withPad: " ", startingAt: 0)
                    print("\(key)  \(item.shown.isEmpty ? "-" : item.shown)  (\(item.origin))")
                }
            }
        }
    }
}

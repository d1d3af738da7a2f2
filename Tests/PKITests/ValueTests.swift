import Foundation
import Primitives
import Testing
@testable import PKI

struct SerialNumberTests {
    @Test func isAPositiveIntegerOfAtMost20Octets() throws {
        #expect(SerialNumber(magnitude: []) == nil)
        #expect(SerialNumber(magnitude: [0, 0]) == nil)
        #expect(SerialNumber(0) == nil)
        #expect(SerialNumber(magnitude: [UInt8](repeating: 0xFF, count: 20))?.magnitude.count == 20)
        #expect(SerialNumber(magnitude: [0] + [UInt8](repeating: 0xFF, count: 20))?.magnitude.count == 20)
        #expect(SerialNumber(magnitude: [1] + [UInt8](repeating: 0, count: 20)) == nil)
        for text in ["", "0", "00", "xy", "1", "-1", " 01", String(repeating: "f", count: 42)] {
            #expect(SerialNumber(text) == nil, "\(text)")
        }
        #expect(SerialNumber("0A")?.description == "0a")
        #expect(SerialNumber("000102")?.description == "0102")
    }

    /// With the high bit set the DER has a leading zero octet, without which it would be negative.
    @Test func theHighBit() throws {
        func der(_ text: String) throws -> String {
            Hex.encode(try #require(SerialNumber(text)).der)
        }
        #expect(try der("7f") == "02017f")
        #expect(try der("80") == "02020080")
        #expect(try der("ff00") == "020300ff00")
        #expect(try der("8000000000000000") == "0209008000000000000000")
        #expect(try der(String(repeating: "ff", count: 20)) == "021500" + String(repeating: "ff", count: 20))
    }

    @Test func isOrderedByValue() throws {
        let texts = ["01", "7f", "80", "ff", "0100", "ffffffffffffffff", "010000000000000000"]
        let wide = ["7f" + String(repeating: "00", count: 15), "80" + String(repeating: "00", count: 15)]
        let long = [String(repeating: "01", count: 17), String(repeating: "ff", count: 20)]
        let serials = try (texts + wide + long).map { try #require(SerialNumber($0)) }
        #expect(serials.sorted() == serials && Set(serials).count == serials.count)
        var generator = SeededRandom(seed: 1)
        #expect(serials.shuffled(using: &generator).sorted() == serials)
    }

    @Test func randomOnesHave16OctetsAndAClearTopBit() throws {
        var seen: Set<SerialNumber> = []
        for _ in 0..<1000 {
            let serial = SerialNumber.random()
            #expect(serial.magnitude.count == 16 && serial.magnitude[0] < 0x80)
            seen.insert(serial)
        }
        #expect(seen.count == 1000)
    }

    @Test func isCodedAsText() throws {
        let serial = try #require(SerialNumber("80ff"))
        let json = try JSONEncoder().encode([serial])
        #expect(String(decoding: json, as: UTF8.self) == #"["80ff"]"#)
        #expect(try JSONDecoder().decode([SerialNumber].self, from: json) == [serial])
        #expect(throws: DecodingError.self) {
            try JSONDecoder().decode([SerialNumber].self, from: Data(#"["00"]"#.utf8))
        }
    }
}

struct TimeTests {
    /// RFC 5280 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
    @Test(arguments: [
        (DERTime.earliest, "500101000000Z"), (-1, "691231235959Z"), (0, "700101000000Z"),
        (951_782_400, "000229000000Z"), (2_524_607_999, "491231235959Z"), (2_524_608_000, "20500101000000Z"),
        (4_107_542_400, "21000301000000Z"), (DERTime.latest, "99991231235959Z"),
    ])
    func formsOfTime(seconds: Int64, text: String) {
        let der = DERTime.der(seconds)
        #expect(String(decoding: der[2...], as: UTF8.self) == text)
        #expect(der[0] == (text.utf8.count == 13 ? 0x17 : 0x18) && Int(der[1]) == text.utf8.count)
        #expect(DERTime.seconds(der[2...], tag: der[0]) == seconds)
    }

    @Test func everyDayIsAsFoundationHasIt() throws {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = try #require(TimeZone(identifier: "UTC"))
        for days in stride(from: -7305, to: 100_000, by: 37) {
            let seconds = Int64(days) * 86_400 + Int64(days * 7919 % 86_400 + 86_400) % 86_400
            let parts = calendar.dateComponents(
                [.year, .month, .day, .hour, .minute, .second], from: Date(timeIntervalSince1970: Double(seconds)))
            let year = try #require(parts.year)
            let text =
                String(format: year < 2050 ? "%02d" : "%04d", year < 2050 ? year % 100 : year)
                + [parts.month, parts.day, parts.hour, parts.minute, parts.second]
                .map { String(format: "%02d", $0 ?? -1) }.joined() + "Z"
            let der = DERTime.der(seconds)
            #expect(String(decoding: der[2...], as: UTF8.self) == text)
            #expect(DERTime.seconds(der[2...], tag: der[0]) == seconds)
        }
    }

    @Test func otherFormsAreRefused() {
        for text in [
            "", "Z", "7001010000Z", "700101000000", "700101000000+0000", "700132000000Z", "700229000000Z",
            "701301000000Z",
            "700001000000Z", "700101240000Z", "700101006000Z", "700101000060Z", "7001010000 0Z", "19700101000000Z",
        ] {
            #expect(DERTime.seconds(Array(text.utf8), tag: 0x17) == nil, "\(text)")
        }
        #expect(DERTime.seconds(Array("19491231235959Z".utf8), tag: 0x18) == DERTime.earliest - 1)
        for text in ["700101000000Z", "20500101000000.5Z", "20500101000000"] {
            #expect(DERTime.seconds(Array(text.utf8), tag: 0x18) == nil, "\(text)")
        }
        #expect(DERTime.seconds(Array("700101000000Z".utf8), tag: 0x0C) == nil)
    }
}

import COpenSSL
import EventModel
import Primitives
import Testing
@testable import Evidence

func opensslDigest(_ bytes: [UInt8]) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: 32)
    EVP_Digest(bytes, bytes.count, &result, nil, EVP_sha256(), nil)
    return result
}

struct NoteTests {
    private let key = try! SigningKey.generate(name: "example.com/log")

    /// The example of C2SP tlog-cosignature, with the keys that its signatures name.
    @Test func notesOfOthersParse() throws {
        let text = """
            example.com/behind-the-sofa
            20852163
            CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

            \u{2014} example.com/behind-the-sofa \
            Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
            \u{2014} witness.example.com/w1 \
            jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==

            """
        let note = try SignedNote(parsing: Array(text.utf8))
        #expect(note.signatures.map(\.name) == ["example.com/behind-the-sofa", "witness.example.com/w1"])
        #expect(note.signatures.map(\.bytes.count) == [64, 72])
        #expect(note.bytes == Array(text.utf8))
        let checkpoint = try note.checkpoint()
        #expect(checkpoint.origin == "example.com/behind-the-sofa" && checkpoint.size == 20_852_163)
        #expect(checkpoint.text == note.text)
    }

    /// The key and the note of Go's golang.org/x/mod/sumdb/note, which the format comes from.
    @Test func aNoteSignedByGoVerifies() throws {
        let key = try VerifierKey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
        let text =
            "If you think cryptography is the answer to your problem,\n"
            + "then you don't know what your problem is.\n"
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
        let signed = "\(text)\n\u{2014} PeterNeumann \(signature)\n"
        try SignedNote(parsing: Array(signed.utf8)).verify(key)
        let changed = signed.replacing("problem is", with: "problem was")
        #expect(throws: EvidenceError.self) { try SignedNote(parsing: Array(changed.utf8)).verify(key) }
    }

    @Test func keysSurviveTheirText() throws {
        let again = try VerifierKey(key.verifier.description)
        #expect(again == key.verifier)
        let reread = try SigningKey(pem: key.pem(), name: "example.com/log")
        #expect(reread.verifier == key.verifier)
        for bad in [
            "", "a+b", "a+00000000+AA==", "a b+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T",
        ] {
            #expect(throws: EvidenceError.self, "\(bad)") { try VerifierKey(bad) }
        }
        #expect(throws: EvidenceError.self) { try SigningKey(pem: Array("nonsense".utf8), name: "a") }
    }

    @Test func malformedNotesAreRefused() throws {
        let good = String(
            decoding: try Checkpoint(origin: "example.com/log", size: 0, root: .emptyRoot)
                .signed(with: key).bytes, as: UTF8.self)
        _ = try SignedNote(parsing: Array(good.utf8))
        for (what, bad) in [
            ("no newline at the end", String(good.dropLast())), ("nothing", ""), ("a newline", "\n"),
            ("no signatures", "text\n\n"), ("no text line", "\u{2014} a AAAAAAA=\n"),
            ("a tab", good.replacing("0", with: "\t")), ("an ordinary dash", good.replacing("\u{2014}", with: "-")),
            ("more behind it", good + "x\n"), ("two spaces", good.replacing("\u{2014} ", with: "\u{2014}  ")),
        ] {
            #expect(throws: EvidenceError.self, "\(what)") { try SignedNote(parsing: Array(bad.utf8)) }
        }
        #expect(throws: EvidenceError.self) { try SignedNote(parsing: Array(good.utf8) + [0xFF, 0x0A]) }
        let root = TreeHash.emptyRoot.base64
        for bad in [
            "a\n1\n", "a\n01\n\(root)\n", "a\n1\nAAAA\n", "a\n\n1\n\(root)\n", "a\n-1\n\(root)\n",
            "a\n18446744073709551616\n\(root)\n", "a\n0\n\(SHA256.digest([1]).base64)\n",
        ] {
            #expect(throws: EvidenceError.self, "\(bad)") { try Checkpoint(text: bad) }
        }
    }

    /// Unicode has two ways to write é; for Swift's strings they are equal, for a signed note they are two names.
    @Test func namesAreComparedByteForByte() throws {
        let key = try SigningKey.generate(name: "caf\u{E9}")
        let note = try Checkpoint(origin: "caf\u{E9}", size: 0, root: .emptyRoot).signed(with: key)
        _ = try note.checkpoint(verifiedBy: key.verifier)
        let text = String(decoding: note.bytes, as: UTF8.self)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        var renamed = lines
        renamed[4] = lines[4].replacing("caf\u{E9}", with: "cafe\u{301}")
        let other = try SignedNote(parsing: Array(renamed.joined(separator: "\n").utf8))
        #expect(throws: EvidenceError.self) { try other.verify(key.verifier) }
        let elsewhere = try Checkpoint(origin: "cafe\u{301}", size: 0, root: .emptyRoot).signed(with: key)
        #expect(throws: EvidenceError.self) { try elsewhere.checkpoint(verifiedBy: key.verifier) }
    }

    @Test func cosignaturesAreOfTheirTimeAndText() throws {
        let witness = try SigningKey.generate(name: "witness.example/w1", kind: .cosignature)
        var note = try Checkpoint(origin: "example.com/log", size: 0, root: .emptyRoot).signed(with: key)
        #expect(throws: EvidenceError.self) { try note.verify(witness.verifier) }
        try note.sign(with: witness, at: 1_700_000_000)
        let again = try SignedNote(parsing: note.bytes)
        #expect(try again.verify(witness.verifier) == 1_700_000_000)
        #expect(try again.verify(key.verifier) == nil)
        // A signature of the plain text under the witness's name is no cosignature.
        let plain = try SigningKey(pem: witness.pem(), name: "witness.example/w1")
        var other = try Checkpoint(origin: "example.com/log", size: 0, root: .emptyRoot).signed(with: key)
        try other.sign(with: plain)
        #expect(throws: EvidenceError.self) { try other.verify(witness.verifier) }
        #expect(throws: EvidenceError.self) { _ = try again.checkpoint(verifiedBy: witness.verifier) }
    }
}

struct ProofFileTests {
    private let key = try! SigningKey.generate(name: "refold/00112233445566778899aabbccddeeff")

    private func make(count: Int, position: Int) throws -> InclusionProof {
        var batch = RecordBatch()
        for index in 0..<count {
            let json = Array("\(index)".utf8)
            batch.append(kind: .system, schema: "test/1", receivedAt: Timestamp(microseconds: 5), json: json)
        }
        var all: [TreeHash] = [], records: [[UInt8]] = []
        batch.withUnsafeBytes { bytes in
            var offset = 0
            while let length = RecordView.check(bytes, at: offset), length > 0 {
                all.append(LeafHasher().leaf(RecordView(unchecked: bytes.baseAddress! + offset)))
                records.append(Array(bytes[offset..<(offset + length)]))
                offset += length
                if offset == bytes.count { break }
            }
        }
        let path = TreeProofs.inclusion(of: UInt64(position), size: UInt64(count)) { compact(all, $0, $1) }
        let root = compact(all, 0, UInt64(count)).root
        let checkpoint = Checkpoint(origin: key.verifier.name, size: UInt64(count), root: root)
        return InclusionProof(
            record: records[position], position: Position(UInt64(position)), path: path,
            note: try checkpoint.signed(with: key))
    }

    @Test func aProofIsSmallAndHolds() throws {
        let proof = try make(count: 100, position: 37)
        #expect(proof.bytes.count - proof.record.count < 4096)
        guard case .inclusion(let again) = try ProofFile(parsing: proof.bytes) else {
            Issue.record("another kind")
            return
        }
        #expect(again == proof)
        #expect(try again.check(key.verifier).size == 100)
        let other = try SigningKey.generate(name: key.verifier.name)
        #expect(throws: EvidenceError.self) { try again.check(other.verifier) }
    }

    @Test func everyFlippedBitIsFound() throws {
        let bytes = try make(count: 11, position: 6).bytes
        for index in bytes.indices {
            for bit in [0, 3, 7] {
                var changed = bytes
                changed[index] ^= 1 << UInt8(bit)
                let holds =
                    (try? ProofFile(parsing: changed)).map { file in
                        if case .inclusion(let proof) = file { (try? proof.check(key.verifier)) != nil } else { false }
                    } ?? false
                #expect(!holds, "bit \(bit) of byte \(index)")
            }
        }
    }

    @Test func aCutOffProofIsRefusedAtEveryLength() throws {
        let bytes = try make(count: 11, position: 6).bytes
        for count in 0..<bytes.count {
            #expect(throws: EvidenceError.self) { try ProofFile(parsing: Array(bytes[..<count])) }
        }
        #expect(throws: EvidenceError.self) { try ProofFile(parsing: bytes + [0x0A]) }
    }

    @Test func lengthsAreCheckedBeforeMemoryIsTaken() {
        for bad in [
            "refold-proof/1\nrecord 18446744073709551615\nx", "refold-proof/1\nrecord 8388609\n",
            "refold-proof/1\nrecord 07\n", "refold-consistency/1\nold 9223372036854775807\nnew 1\n\n",
        ] {
            #expect(throws: EvidenceError.self) { try ProofFile(parsing: Array(bad.utf8)) }
        }
    }

    @Test func consistencyIsProvedAndARollbackIsNot() throws {
        let all = leaves(50)
        func note(_ leaves: [TreeHash]) throws -> SignedNote {
            try Checkpoint(
                origin: key.verifier.name, size: UInt64(leaves.count),
                root: compact(leaves, 0, UInt64(leaves.count)).root
            ).signed(with: key)
        }
        let path = TreeProofs.consistency(from: 20, to: 50) { compact(all, $0, $1) }
        let proof = ConsistencyProof(old: try note(Array(all[..<20])), new: try note(all), path: path)
        guard case .consistency(let again) = try ProofFile(parsing: proof.bytes) else {
            Issue.record("another kind")
            return
        }
        #expect(again == proof)
        #expect(try again.check(key.verifier).new.size == 50)
        var edited = all
        edited[3] = all[4]
        let rewritten = ConsistencyProof(old: proof.old, new: try note(edited), path: path)
        #expect(throws: EvidenceError.self) { try rewritten.check(key.verifier) }
        let back = ConsistencyProof(old: proof.new, new: proof.old, path: path)
        #expect(throws: EvidenceError.self) { try back.check(key.verifier) }
    }
}

struct TileTests {
    @Test func pathsAreThoseOfTheFormat() {
        #expect(TileWriter.path("0", 1_234_067) == "tile/0/x001/x234/067")
        #expect(TileWriter.path("entries", 0, 112) == "tile/entries/000.p/112")
        #expect(TileWriter.path("2", 1000, 255) == "tile/2/x001/000.p/255")
    }

    /// The example of C2SP tlog-tiles: which files a tree of 70,000 has, and one of 256.
    @Test func filesAreThoseOfTheSize() {
        let leaf = SHA256.digest([])
        func files(_ size: Int) -> [TileWriter.File] {
            var writer = TileWriter(withEntries: false), files: [TileWriter.File] = []
            for _ in 0..<size { writer.append(leaf: leaf, entry: []) { files.append($0) } }
            writer.finish { files.append($0) }
            return files
        }
        let large = files(70_000)
        #expect(large.filter { $0.path.hasPrefix("tile/0/") && $0.bytes.count == 8192 }.count == 273)
        #expect(large.suffix(3).map(\.path) == ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"])
        #expect(large.suffix(3).map(\.bytes.count) == [112 * 32, 17 * 32, 32])
        #expect(files(256).map(\.path) == ["tile/0/000", "tile/1/000.p/1"])
        #expect(files(0).isEmpty)
    }

    @Test func bundlesHoldTheEntries() throws {
        var writer = TileWriter(), files: [TileWriter.File] = []
        for index in 0..<300 {
            let entry = [UInt8](repeating: 1, count: index)
            writer.append(leaf: LeafHasher.leaf(ofCanonical: entry), entry: entry) { files.append($0) }
        }
        writer.finish { files.append($0) }
        let last = try #require(files.first { $0.path == "tile/entries/001.p/44" })
        #expect(Array(last.bytes.prefix(3)) == [1, 0, 1])
        #expect(last.bytes.count == (256..<300).reduce(0) { $0 + 2 + $1 })
        #expect(
            try #require(files.first { $0.path == "tile/1/000.p/1" }).bytes
                == compact(leavesOfBundle(256), 0, 256).root.bytes)
    }

    private func leavesOfBundle(_ count: Int) -> [TreeHash] {
        (0..<count).map { LeafHasher.leaf(ofCanonical: [UInt8](repeating: 1, count: $0)) }
    }
}

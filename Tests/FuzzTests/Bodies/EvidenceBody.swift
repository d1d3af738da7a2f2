import Evidence

/// Takes the input for a proof, a signed note, a checkpoint or a key, as they come from strangers: none may crash or
/// hang, and a proof, a note and a checkpoint have one form only: written again, they are the input.
public func fuzzEvidence(_ input: UnsafeRawBufferPointer) {
    guard let choice = input.first else { return }
    let bytes = [UInt8](input.dropFirst())
    switch choice % 3 {
    case 0:
        guard let proof = try? ProofFile(parsing: bytes) else { return }
        precondition(proof.bytes == bytes, "a proof with two forms")
        switch proof {
        case .inclusion(let proof): _ = try? proof.check(strangersKey)
        case .consistency(let proof): _ = try? proof.check(strangersKey)
        }
    case 1:
        guard let note = try? SignedNote(parsing: bytes) else { return }
        precondition(note.bytes == bytes, "a note with two forms")
        _ = try? note.verify(strangersKey)
        if let checkpoint = try? note.checkpoint() {
            precondition(checkpoint.text == note.text, "a checkpoint with two forms")
        }
    default:
        guard let text = String(validating: bytes, as: UTF8.self), let key = try? VerifierKey(text) else { return }
        precondition((try? VerifierKey(key.description)) == key, "a key whose text is another key")
    }
}

private let strangersKey: VerifierKey = {
    guard let key = VerifierKey(name: "refold/x", kind: .note, publicKey: [UInt8](repeating: 7, count: 32)) else {
        preconditionFailure("no key")
    }
    return key
}()

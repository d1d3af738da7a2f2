import COpenSSL

/// Textual encoding of DER objects (RFC 7468), by OpenSSL: text around the blocks is skipped, as all tools do.
enum PEM {
    static func encode(_ label: String, _ der: [UInt8]) throws(PKIError) -> [UInt8] {
        let bio = try MemoryBIO()
        guard der.count <= Int32.max, PEM_write_bio(bio.pointer, label, "", der, der.count) > 0 else {
            throw .openSSL(.crypto, "cannot encode a \(label.lowercased()) as PEM")
        }
        return bio.read()
    }

    /// The contents of all blocks with one of these labels, in order. Blocks with other labels are skipped.
    /// - Parameter what: names the object in errors.
    static func decode(
        _ text: [UInt8], labels: Set<String>, what: String, bytesMax: Int, countMax: Int
    ) throws(PKIError) -> [[UInt8]] {
        guard text.count <= bytesMax else {
            throw PKIError(.malformed, "\(what): \(text.count) bytes exceed the limit of \(bytesMax)")
        }
        let bio = try MemoryBIO.holding(text)
        var found: [[UInt8]] = []
        while true {
            var name: UnsafeMutablePointer<CChar>?, header: UnsafeMutablePointer<CChar>?
            var data: UnsafeMutablePointer<UInt8>?, count = 0
            guard PEM_read_bio(bio.pointer, &name, &header, &data, &count) == 1 else { break }
            defer {
                CRYPTO_free(name, #file, #line)
                CRYPTO_free(header, #file, #line)
                CRYPTO_free(data, #file, #line)
            }
            guard let name, labels.contains(String(cString: name)) else { continue }
            guard found.count < countMax else {
                throw PKIError(.malformed, "\(what): more than \(countMax) PEM blocks in one file")
            }
            found.append(Array(UnsafeBufferPointer(start: data, count: count)))
        }
        let error = ERR_peek_last_error()
        let isEnd = ERR_GET_REASON(error) == PEM_R_NO_START_LINE
        let reasons = OpenSSLErrors.take()
        guard isEnd else { throw PKIError(.malformed, "\(what): invalid PEM: \(reasons)") }
        guard !found.isEmpty else {
            let wanted = labels.sorted().map { "-----BEGIN \($0)-----" }.joined(separator: " or ")
            throw PKIError(.malformed, "\(what): no PEM block \(wanted) in \(text.count) bytes")
        }
        return found
    }
}

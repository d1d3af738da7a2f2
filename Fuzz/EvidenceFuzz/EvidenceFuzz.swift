import FuzzBodies

/// libFuzzer's entry point (https://llvm.org/docs/LibFuzzer.html).
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    fuzzEvidence(UnsafeRawBufferPointer(start: bytes, count: count))
    return 0
}

import COpenSSL

/// OpenSSL frees nothing at the end of the process. By default it frees everything in exit(3), also what a thread that
/// is ending still uses: a verb whose request was answered could end with SIGSEGV. Must come before any other use of
/// OpenSSL (`OPENSSL_INIT_NO_ATEXIT`, OPENSSL_init_crypto(3)).
public func keepOpenSSLUntilTheEnd() {
    OPENSSL_init_crypto(UInt64(OPENSSL_INIT_NO_ATEXIT), nil)
}

// OpenSSL: SHA-256 (EVP) and the TLS state behind libmosquitto (SSL_pending).
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

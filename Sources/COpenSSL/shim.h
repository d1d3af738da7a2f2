// OpenSSL: SHA-256, keys and signatures (EVP), certificates, requests and CRLs (X509), and the TLS state behind
// libmosquitto (SSL_pending).
// The low-level SHA-256 is deprecated, not removed, and saves a fifth of a tree node (96 instead of 119 ns).
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

/// For X509_NAME_print_ex: RFC 4514 text, with characters beyond ASCII as they are. Swift does not import the macros.
static const unsigned long refold_rfc4514_flags = XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB;

#!/usr/bin/env python3
"""A CRL by Python's cryptography, from the folder that `refold-bench crl --folder` writes.

    crl_cryptography.py FOLDER

The list goes to the builder's constructor: `add_revoked_certificate` copies it at each call. Prints one JSON object: the
milliseconds from serial numbers, times and reasons in memory to the signed DER, and its entries.
"""
import datetime, json, sys, time
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

folder = sys.argv[1]
key = serialization.load_pem_private_key(open(f"{folder}/ca.key", "rb").read(), None)
issuer = x509.load_pem_x509_certificate(open(f"{folder}/ca.pem", "rb").read())
reasons = {flag.value: flag for flag in x509.ReasonFlags}
revoked = []
for line in open(f"{folder}/index.txt"):
    fields = line.split("\t")
    date, _, reason = fields[2].partition(",")
    revoked.append((int(fields[3], 16), datetime.datetime.strptime(date, "%y%m%d%H%M%SZ"), reasons.get(reason)))

begin = time.perf_counter()
entries = []
for serial, when, reason in revoked:
    entry = x509.RevokedCertificateBuilder(serial, when, [
        x509.Extension(x509.CRLReason.oid, False, x509.CRLReason(reason))] if reason else [])
    entries.append(entry.build())
identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
extensions = [x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), x509.CRLNumber(1)]
this = datetime.datetime(2026, 6, 1)
crl = x509.CertificateRevocationListBuilder(
    issuer.subject, this, this + datetime.timedelta(days=7),
    [x509.Extension(value.oid, False, value) for value in extensions], entries).sign(key, hashes.SHA256())
der = crl.public_bytes(serialization.Encoding.DER)
print(json.dumps({"milliseconds": (time.perf_counter() - begin) * 1000, "entries": len(crl), "bytes": len(der)}))

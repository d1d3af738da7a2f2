"""Checks certificates and CRLs (DER) against RFC 5280 with pkilint, in one process. One line a finding of severity
NOTICE, WARNING, ERROR or FATAL: file, severity, code, message. INFO is left out: pkilint reports by it which method made
a key identifier, whatever the method.

    lint.py FILE.der…       names that begin with crl are CRLs
"""
import os, sys
from pkilint import loader, pkix
from pkilint.pkix import certificate, crl, extension, name
from pkilint.validation import ValidationFindingSeverity

of_certificates = certificate.create_pkix_certificate_validator_container(
    certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
    [certificate.create_issuer_validator_container([]), certificate.create_validity_validator_container(),
     certificate.create_subject_validator_container([]), certificate.create_extensions_validator_container([]),
     certificate.create_spki_validator_container([])])
of_crls = crl.create_pkix_crl_validator_container(
    [pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS), pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS)],
    [crl.create_issuer_validator_container([]), crl.create_validity_validator_container([]),
     crl.create_extensions_validator_container([])])

for path in sys.argv[1:]:
    base = os.path.basename(path)
    with open(path, "rb") as file:
        if base.startswith("crl"):
            document, validator = loader.load_crl(file.read(), base), of_crls
        else:
            document, validator = loader.load_certificate(file.read(), base), of_certificates
    for result in validator.validate(document.root):
        for finding in result.finding_descriptions:
            # The more severe, the smaller.
            if finding.finding.severity <= ValidationFindingSeverity.NOTICE:
                print(base, finding.finding.severity.name, finding.finding.code, finding.message or "")

"""Reads the certificates and CRLs of a folder with OpenSSL, GnuTLS and Python's cryptography, and verifies their
signatures. One line a file and tool, in one form, so that a test can compare them.

    read.py FOLDER TOOL     TOOL: cryptography openssl gnutls

FOLDER has issuer-I.pem (authorities), cert-I-N.der and crl-I-N.der (by issuer I). Lines:
    cert-I-N serial notBefore notAfter ca pathLength names crlDistributionPoint verified
    crl-I-N number thisUpdate nextUpdate count sha256 verified
Times are seconds since 1970. `sha256` is of the lines "serial time reason" of the entries, in the order of the file;
GnuTLS prints no reasons, so that its lines have none. What is not there is "-".
"""
import base64, calendar, concurrent.futures, datetime, glob, hashlib, os, re, subprocess, sys, time, warnings

folder, tool = sys.argv[1:]
warnings.simplefilter("ignore")


def files(pattern):
    return sorted(os.path.basename(path) for path in glob.glob(os.path.join(folder, pattern)))


def issuer(name):
    return f"issuer-{name.split('-')[1]}.pem"


def run(*arguments, **options):
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
                          **options)


def spread(work, names):
    """Runs a program for each file, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(work, names)))


def digest(entries):
    return hashlib.sha256("".join(f"{line}\n" for line in entries).encode()).hexdigest()


def show(*fields):
    print(*("-" if field in (None, "") else field for field in fields))


# cryptography
def seconds(value):
    return calendar.timegm(value.utctimetuple())


def with_cryptography():
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
    load = lambda name: open(os.path.join(folder, name), "rb").read()

    def verified(key, item, tbs):
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(item.signature, tbs, ec.ECDSA(item.signature_hash_algorithm))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(item.signature, tbs)
        else:
            key.verify(item.signature, tbs, padding.PKCS1v15(), item.signature_hash_algorithm)
        return "OK"

    def moment(item, name):
        # Older versions have naive times only.
        return seconds(getattr(item, name + "_utc", None) or getattr(item, name))

    keys = {name: x509.load_pem_x509_certificate(load(name)).public_key() for name in files("issuer-*.pem")}
    for name in files("cert-*.der"):
        item = x509.load_der_x509_certificate(load(name))
        found = {extension.oid: extension.value for extension in item.extensions}
        constraints = found.get(x509.BasicConstraints.oid)
        names = found.get(x509.SubjectAlternativeName.oid, [])
        points = found.get(x509.CRLDistributionPoints.oid)
        kinds = {x509.DNSName: "DNS", x509.UniformResourceIdentifier: "URI"}
        show(name, f"{item.serial_number:x}", moment(item, "not_valid_before"), moment(item, "not_valid_after"),
             int(bool(constraints and constraints.ca)), constraints.path_length if constraints else None,
             ",".join(f"{kinds[type(n)]}:{n.value}" for n in names), points and points[0].full_name[0].value,
             verified(keys[issuer(name)], item, item.tbs_certificate_bytes))
    for name in files("crl-*.der"):
        item = x509.load_der_x509_crl(load(name))
        entries = []
        for entry in item:
            reason = [e.value.reason.value for e in entry.extensions if e.oid == x509.CRLReason.oid]
            entries.append(f"{entry.serial_number:x} {moment(entry, 'revocation_date')} {reason[0] if reason else '-'}")
        number = item.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        show(name, number, moment(item, "last_update"), moment(item, "next_update"), len(entries), digest(entries),
             verified(keys[issuer(name)], item, item.tbs_certlist_bytes))


# OpenSSL: storeutl prints all objects of a PEM file in one process
def parse_time(text):
    return calendar.timegm(time.strptime(text.strip().removesuffix(" GMT"), "%b %d %H:%M:%S %Y"))


def bundle(names, label):
    path = os.path.join(folder, "bundle.pem")
    with open(path, "w") as file:
        for name in names:
            text = base64.encodebytes(open(os.path.join(folder, name), "rb").read()).decode()
            file.write(f"-----BEGIN {label}-----\n{text}-----END {label}-----\n")
    return "bundle.pem"


def hexadecimal(text):
    return text.replace(":", "").strip().lstrip("0").lower()


def field(pattern, text, default=None):
    found = re.search(pattern, text)
    return found.group(1).strip() if found else default


REASONS = {"Key Compromise": "keyCompromise", "CA Compromise": "cACompromise", "Affiliation Changed": "affiliationChanged",
           "Superseded": "superseded", "Cessation Of Operation": "cessationOfOperation", "Certificate Hold": "certificateHold",
           "Privilege Withdrawn": "privilegeWithdrawn", "AA Compromise": "aACompromise"}


def with_openssl():
    names, checks = files("cert-*.der"), {}
    for authority in files("issuer-*.pem"):
        mine = [name for name in names if issuer(name) == authority]
        checked = run("openssl", "verify", "-partial_chain", "-no_check_time", "-x509_strict", "-trusted", authority, *mine)
        checks.update(line.split(": ", 1) for line in checked.stdout.splitlines())
        assert checked.returncode == 0, checked.stderr
    printed = run("openssl", "storeutl", "-noout", "-text", "-certs", bundle(names, "CERTIFICATE")).stdout
    for name, text in zip(names, re.split(r"^\d+: Certificate$", printed, flags=re.M)[1:], strict=True):
        serial = field(r"Serial Number:\s*\n\s*([0-9a-f:]+)\n", text) or "%x" % int(field(r"Serial Number: (\d+)", text))
        path = field(r"CA:TRUE, pathlen:(\d+)", text)
        alternative = field(r"Subject Alternative Name:[^\n]*\n\s*([^\n]*)", text, "")
        points = field(r"CRL Distribution Points:[^\n]*\n(?:\s*Full Name:\n)?\s*URI:([^\n]*)", text)
        show(name, hexadecimal(serial), parse_time(field(r"Not Before: (.*)", text)),
             parse_time(field(r"Not After : (.*)", text)), int("CA:TRUE" in text), path, alternative.replace(", ", ","), points,
             checks[name])
    names = files("crl-*.der")
    printed = run("openssl", "storeutl", "-noout", "-text", "-crls", bundle(names, "X509 CRL")).stdout
    checks = spread(lambda name: run("openssl", "crl", "-noout", "-in", name, "-CAfile", issuer(name)).stderr, names)
    for name, text in zip(names, re.split(r"^\d+: CRL$", printed, flags=re.M)[1:], strict=True):
        entries = []
        for entry in re.split(r"^ +Serial Number: ", text, flags=re.M)[1:]:
            reason = field(r"Reason Code:\s*\n([^\n]*)", entry)
            when = parse_time(field(r"Revocation Date: (.*)", entry))
            entries.append(f"{hexadecimal(entry.split()[0])} {when} {REASONS[reason] if reason else '-'}")
        number = field(r"CRL Number: *\n *([^\n]*)", text)
        show(name, int(number, 0), parse_time(field(r"Last Update: (.*)", text)),
             parse_time(field(r"Next Update: (.*)", text)), len(entries), digest(entries), checks[name].strip().removeprefix("verify "))


# GnuTLS: one process a signature. It verifies at the current time only, so that its verdict on times is left out.
def gnutls_check(name, label, option):
    path = os.path.join(folder, name)
    text = base64.encodebytes(open(path, "rb").read()).decode()
    checked = run("certtool", option, "--verify-profile", "low", "--load-ca-certificate", issuer(name),
                  input=f"-----BEGIN {label}-----\n{text}-----END {label}-----\n")
    verdict = field(r"erification output: (.*)", checked.stdout, "")
    wrong = re.search(r"signature|unknown|not supported|insecure|constraint|violates", verdict)
    return checked.stdout, "OK" if verdict and not wrong else verdict + checked.stderr


def parse_gnutls(text):
    return calendar.timegm(time.strptime(text.strip(), "%a %b %d %H:%M:%S UTC %Y"))


def with_gnutls():
    names = files("cert-*.der")
    printed = run("certtool", "--certificate-info", "--infile", bundle(names, "CERTIFICATE")).stdout
    checks = spread(lambda name: gnutls_check(name, "CERTIFICATE", "--verify"), names)
    for name, text in zip(names, re.split(r"^X.509 Certificate Information:$", printed, flags=re.M)[1:], strict=True):
        kinds = {"DNSname": "DNS", "URI": "URI"}
        section = field(r"Subject Alternative Name \(not critical\):\n((?:\t\t\t.*\n)*)", text, "")
        listed = [line.strip().split(": ", 1) for line in section.splitlines()]
        path = field(r"Path Length Constraint: (\d+)", text)
        show(name, hexadecimal(field(r"Serial Number \(hex\): ([0-9a-f]+)", text)), parse_gnutls(field(r"Not Before: (.*)", text)),
             parse_gnutls(field(r"Not After: (.*)", text)), int("Certificate Authority (CA): TRUE" in text), path,
             ",".join(f"{kinds[kind]}:{value}" for kind, value in listed),
             field(r"CRL Distribution points \(not critical\):\n\t\t\tURI: (.*)", text), checks[name][1])
    names = files("crl-*.der")
    for name, (text, checked) in spread(lambda name: gnutls_check(name, "X509 CRL", "--verify-crl"), names).items():
        entries = []
        for entry in text.split("Serial Number (hex): ")[1:]:
            entries.append(f"{hexadecimal(entry.split()[0])} {parse_gnutls(field(r'Revoked at: (.*)', entry))}")
        number = field(r"CRL Number \(not critical\): ([0-9a-f]+)", text)
        show(name, int(number, 16), parse_gnutls(field(r"Issued: (.*)", text)), parse_gnutls(field(r"Next at: (.*)", text)),
             len(entries), digest(entries), checked)


{"cryptography": with_cryptography, "openssl": with_openssl, "gnutls": with_gnutls}[tool]()

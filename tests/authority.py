"""A certificate authority of the test's own, and a server's TLS context signed by it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl


def make_authority(folder):
    """Return the path of the authority's certificate and an SSLContext for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def certificate(subject, key, issuer, issuer_key, *, authority):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        return builder.sign(issuer_key, hashes.SHA256())

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def pem(key):
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    folder.mkdir(mode=0o700)
    top_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    top = certificate(name("test authority"), top_key, name("test authority"), top_key,
                      authority=True)  # fmt: skip
    leaf = certificate(name("127.0.0.1"), key, name("test authority"), top_key, authority=False)
    bundle, server = folder / "authority.pem", folder / "server.pem"
    bundle.write_bytes(top.public_bytes(serialization.Encoding.PEM))
    server.write_bytes(pem(key) + leaf.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    return bundle, context

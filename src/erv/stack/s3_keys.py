"""The keys of the S3 server: its one account, and the certificates that close SeaweedFS's inner servers.

SeaweedFS is four servers in one process: S3, filer, master and volume server. They talk to each other over
HTTP and gRPC on ports of this machine, and only S3 has accounts. With mutual TLS, the other ports answer only
a client with our certificate: the process itself, or a user who can read this folder (`weed shell`, started
in it).

Command: `python -m erv.stack.s3_keys FOLDER` writes the certificates alone, for the compose stack.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import sys
from pathlib import Path

from erv.environment import Environment
from erv.stack.dvc_remote import write_private

# Without an end that a wrong clock or an old workspace could reach.
_FROM, _TO = datetime.datetime(2000, 1, 1), datetime.datetime(2999, 12, 31)
_SERVERS = ("master", "volume", "filer")


def write_s3_keys(environment: Environment) -> None:
    """Writes account, certificates and `security.toml`, each readable by the user only."""
    folder = environment.stack / "s3"
    (folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = {
        "name": "erv",
        "credentials": [{"accessKey": environment.s3_access_key, "secretKey": environment.s3_secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write_private(folder / "s3.json", json.dumps({"identities": [identity]}, indent=1) + "\n")
    write_certificates(folder)


def write_certificates(folder: Path) -> None:
    """Writes `tls/` and a `security.toml` that uses it, for a SeaweedFS that is started in `folder`.

    They are new at each start: nothing but the server that is about to start needs them.
    """
    authority, certificate, key = _certificate()
    write_private(folder / "tls" / "ca.pem", authority)
    write_private(folder / "tls" / "cert.pem", certificate)
    write_private(folder / "tls" / "key.pem", key)
    # SeaweedFS looks for it in the folder that it is started in.
    write_private(folder / "security.toml", security_toml(Path("tls")))


def security_toml(tls: Path) -> str:
    """SeaweedFS's `security.toml`: mutual TLS for HTTP and gRPC of every server but S3, which has keys.

    Args:
        tls: the folder of `ca.pem`, `cert.pem` and `key.pem`.
    """
    pair = f'cert = "{tls / "cert.pem"}"\nkey = "{tls / "key.pem"}"\n'
    authority = f'ca = "{tls / "ca.pem"}"\n'
    grpc = "".join(f"[grpc.{name}]\n{pair}\n" for name in (*_SERVERS, "s3", "client"))
    https = "".join(f"[https.{name}]\n{pair}{authority}\n" for name in _SERVERS)
    client = f"[https.client]\nenabled = true\n{pair}{authority}"
    return f"[grpc]\n{authority}\n{grpc}{https}{client}"


def _certificate() -> tuple[str, str, str]:
    """A certificate of 127.0.0.1 for both ends of a connection: its authority, itself and its key, as PEM.

    The key of the authority is not kept, so it can sign no other certificate.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            issuer_name=name("erv s3 authority"),
            subject_name=name(subject),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=_FROM,
            not_valid_after=_TO,
        )

    above, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = (
        builder("erv s3 authority", above)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(above, hashes.SHA256())
    )
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        builder("erv s3", key)
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
        .sign(above, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return authority.public_bytes(pem).decode(), certificate.public_bytes(pem).decode(), private.decode()


if __name__ == "__main__":
    write_certificates(Path(sys.argv[1]))

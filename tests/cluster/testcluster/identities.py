"""Creates the certificates, tokens and kubeconfig files of a cluster."""

import datetime
import ipaddress
import json
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from testcluster.machine import API_SERVICE, NODE_ADDRESS

NODE = "node-0"
API = f"https://{NODE_ADDRESS}:6443"
ADMIN = "admin"
# kubeconfig → user and group; the default roles of Kubernetes are bound to these names
USERS = {
    ADMIN: ("fourfold-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
    "dns": ("fourfold-dns", ""),
}
DAYS = 2


def write_identities(folder: Path) -> None:
    """Write the CA, the certificates of the API server (server, client of kubelet), tokens and kubeconfigs."""
    folder.mkdir(mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("fourfold-test-cluster", authority_key, None, authority_key)
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for name, common_name in (("server", "kube-apiserver"), ("kubelet-client", "kube-apiserver-kubelet-client")):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(common_name, key, authority, authority_key)
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(folder / f"{name}.key", key)
    _write_key(folder / "service-account.key", rsa.generate_private_key(65537, 2048))
    rows = []
    for name, (user, group) in USERS.items():
        token = secrets.token_urlsafe(24)
        rows.append(f'{token},{user},{name},"{group}"' if group else f"{token},{user},{name}")
        write_kubeconfig(folder / f"{name}.kubeconfig", token, folder / "ca.crt")
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")


def write_kubeconfig(path: Path, token: str, authority: Path, namespace: str = "default") -> None:
    """Write a kubeconfig (JSON, which is YAML) with one context, `fourfold-test`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fourfold-test",
        "clusters": [{"name": "fourfold-test", "cluster": {"server": API, "certificate-authority": str(authority)}}],
        "users": [{"name": "fourfold-test", "user": {"token": token}}],
        "contexts": [
            {"name": "fourfold-test", "context": {"cluster": "fourfold-test", "user": "fourfold-test", "namespace": namespace}}
        ],
    }
    path.write_text(json.dumps(config, indent=1))
    path.chmod(0o600)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate | None, signer: ec.EllipticCurvePrivateKey
):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_usage(authority is None), critical=True)
    )
    if authority is not None:
        names = [x509.DNSName(n) for n in ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")]
        addresses = [x509.IPAddress(ipaddress.ip_address(a)) for a in (NODE_ADDRESS, API_SERVICE, "127.0.0.1")]
        builder = builder.add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)

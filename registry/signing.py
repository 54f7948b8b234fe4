"""The key that signs decisions and models, and signatures in the format of OpenSSF model signing.

A signature is for one file, whatever its name: `model_signing verify key FILE --signature SIG --public_key PEM` checks
it without Pawline.
"""

import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tasks.stage import PawlineError

KEY_VARIABLE = "PAWLINE_SIGNING_KEY"
KEY_NAME = "signing-key.pem"
CURVE = ec.SECP256R1  # NIST P-256: the first of those that model signing takes
MAKE_ONE = "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE` makes one"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SigningKey:
    """A private key where it lies, and its public half.

    Attributes:
        path: The private key, PEM; its bytes are read only to sign.
        public_pem: The public key, PEM.
        fingerprint: SHA-256 of the public key (DER), in hex.
    """

    path: Path
    public_pem: bytes
    fingerprint: str

    @property
    def public_path(self) -> Path:
        """The public key beside the private one, to be given to others."""
        return self.path.with_name(f"{self.path.stem}.pub.pem")


def load_key() -> SigningKey:
    """Return the user's key: of `PAWLINE_SIGNING_KEY`, else of the user's configuration, made at first use.

    Raises:
        PawlineError: There is no such file, it cannot be read, or it holds no usable key.
    """
    named = os.environ.get(KEY_VARIABLE)
    path = Path(named).expanduser() if named else platformdirs.user_config_path("pawline") / KEY_NAME
    try:
        if not named and not path.exists():
            _make_key(path)
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise PawlineError(
            f"{KEY_VARIABLE}: there is no {path}: correct it, or unset it for a key of your own in "
            f"{platformdirs.user_config_path('pawline')}"
        ) from error
    except OSError as error:
        raise PawlineError(
            f"{error.filename}: {error.strerror}: a signing key belongs there, readable by you"
        ) from error
    public = _public_pem(_parse_private(content, path).public_key())
    key = SigningKey(path, public, fingerprint(public))
    _keep_public(key)
    return key


def parse_public(content: bytes) -> tuple[bytes, str]:
    """Return a public key in PEM, without what else was in the file, and its fingerprint.

    Raises:
        PawlineError: It is none that verifies signatures here.
    """
    try:
        public = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PawlineError(
            "that is no public key in PEM: `openssl pkey -in KEY.pem -pubout -out FILE` writes that of a private key"
        ) from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, CURVE):
        raise PawlineError(f"that is a key of another kind, and decisions are signed with EC P-256: {MAKE_ONE}")
    return _public_pem(public), fingerprint(_public_pem(public))


def fingerprint(public_pem: bytes) -> str:
    """Return how a public key is called: the SHA-256 of its DER form (SubjectPublicKeyInfo), in hex.

    Raises:
        PawlineError: It is no public key in PEM.
    """
    try:
        public = load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PawlineError("tampered: a key of the registry is no public key in PEM; `pawline verify`") from error
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def sign_file(path: Path, signature_path: Path, key: SigningKey) -> None:
    """Sign a file; its name is in the signature and plays no part when it is verified."""
    from model_signing import signing

    config = signing.Config()  # type: ignore[no-untyped-call]  # the one function the library did not annotate
    config.use_elliptic_key_signer(private_key=key.path).sign(path, signature_path)


def verify_file(path: Path, signature_path: Path, public_key_pem_path: Path) -> None:
    """Check that a file is the one that was signed, with that key.

    Args:
        path: The file; a link is followed, because DVC may put one into the workspace.
        signature_path: What `sign_file` wrote.
        public_key_pem_path: The public key.

    Raises:
        PawlineError: It is not, or one of the three cannot be read.
    """
    from model_signing import verifying

    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]  # as above
        config.use_elliptic_key_verifier(public_key=public_key_pem_path).verify(path.resolve(), signature_path)
    except OSError as error:
        raise PawlineError(f"{error.filename}: {error.strerror}: it is needed to check a signature") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, InvalidSignature) as error:
        # What the library raises for bytes that are no signature, another key's, or another file's.
        raise PawlineError(
            f"tampered: {path} is not what {signature_path} was made for with the key {public_key_pem_path}"
        ) from error


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all, for the user's eyes only; one that appears meanwhile stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = ec.generate_private_key(CURVE()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as unfinished:  # made with mode 0600
        unfinished.write(pem)
        unfinished.flush()
        os.fsync(unfinished.fileno())
        try:
            os.link(unfinished.name, path)
        except FileExistsError:
            return
    logger.info("made a signing key for you: %s (keep a copy: decisions are signed with it)", path)


def _parse_private(content: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        private = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise PawlineError(
            f"{path} is protected by a password, and nobody is asked for one here: set {KEY_VARIABLE} to a key without"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PawlineError(f"{path} is no private key in PEM: {MAKE_ONE}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, CURVE):
        raise PawlineError(f"{path} is a key of another kind, and decisions are signed with EC P-256: {MAKE_ONE}")
    return private


def _public_pem(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _keep_public(key: SigningKey) -> None:
    """Write the public key beside the private one, where that is possible: signing does not need it."""
    path = key.public_path
    try:
        if path.is_file() and path.read_bytes() == key.public_pem:
            return
        path.write_bytes(key.public_pem)
    except OSError as error:
        logger.info("%s: %s: your public key is not kept there", path, error.strerror)

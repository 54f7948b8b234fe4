"""The signing key and signatures, with the library and its own command line."""

import logging
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from registry import signing
from tasks.stage import PawlineError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    return tmp_path / "config" / "pawline"


def pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_a_key_is_made_at_first_use_and_kept(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        key = signing.load_key()
    assert key.path == config / "signing-key.pem"
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    assert str(key.path) in caplog.text
    assert sorted(path.name for path in config.iterdir()) == ["signing-key.pem", "signing-key.pub.pem"]
    assert key.public_path.read_bytes() == key.public_pem
    assert signing.load_key() == key
    assert signing.fingerprint(key.public_pem) == key.fingerprint


def test_the_fingerprint_is_that_of_openssl(config: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it is what the fingerprint is compared with")
    key = signing.load_key()
    der = tmp_path / "key.der"
    subprocess.run(["openssl", "ec", "-in", key.path, "-pubout", "-outform", "DER", "-out", der], check=True)
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r", der], check=True, capture_output=True, text=True)
    assert digest.stdout.split()[0] == key.fingerprint


def test_two_first_uses_at_once_end_with_one_key(config: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: signing.load_key(), range(8)))
    assert len({key.fingerprint for key in keys}) == 1
    assert sorted(path.name for path in config.iterdir()) == ["signing-key.pem", "signing-key.pub.pem"]


def test_the_public_key_is_beside_the_private_one_where_that_is_possible(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = signing.load_key()
    assert signing.parse_public(key.public_path.read_bytes()) == (key.public_pem, key.fingerprint)
    named = config / "team.pem"
    named.write_bytes(key.path.read_bytes())
    monkeypatch.setenv(signing.KEY_VARIABLE, str(named))
    assert signing.load_key().public_path.read_bytes() == key.public_pem
    assert (config / "team.pub.pem").exists()
    (config / "team.pub.pem").unlink()
    (config / "team.pub.pem").mkdir()
    with caplog.at_level(logging.INFO):
        assert signing.load_key().fingerprint == key.fingerprint
    assert "team.pub.pem: Is a directory: your public key is not kept there" in caplog.text


def test_of_a_file_only_the_public_key_is_taken(config: Path) -> None:
    key = signing.load_key()
    assert signing.parse_public(b"a remark\n" + key.public_pem + key.path.read_bytes())[0] == key.public_pem
    other = (
        rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for content, message in (
        (key.path.read_bytes(), "is no public key in PEM: `openssl pkey"),
        (b"nonsense", "is no public key in PEM"),
        (other, "is a key of another kind"),
    ):
        with pytest.raises(PawlineError, match=message) as caught:
            signing.parse_public(content)
        assert "\n" not in str(caught.value)


def test_a_signature_holds_for_the_bytes_whatever_their_name(config: Path, tmp_path: Path) -> None:
    key = signing.load_key()
    public, signature = tmp_path / "public.pem", tmp_path / "model.sig"
    public.write_bytes(key.public_pem)
    model, copy, changed, link = (tmp_path / name for name in ("classifier.keras", "copy.bin", "changed", "link"))
    model.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    changed.write_bytes(b"weight5")
    link.symlink_to(model)
    signing.sign_file(model, signature, key)
    for path in (model, copy, link):
        signing.verify_file(path, signature, public)
    assert standard_verify(copy, signature, public) == 0
    with pytest.raises(PawlineError, match=r"^tampered: .*changed is not what .*model\.sig was made for"):
        signing.verify_file(changed, signature, public)
    assert standard_verify(changed, signature, public) != 0


def standard_verify(path: Path, signature: Path, public: Path) -> int:
    tool = Path(sys.executable).with_name("model_signing")
    command: list[str | Path] = [tool, "verify", "key", path, "--signature", signature, "--public_key", public]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_what_is_no_signature_is_tampered(config: Path, tmp_path: Path) -> None:
    key = signing.load_key()
    public, file, signature = tmp_path / "public.pem", tmp_path / "file", tmp_path / "sig"
    file.write_bytes(b"decision")
    signing.sign_file(file, signature, key)
    signed = signature.read_bytes()
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    cases = {
        "another key": (other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), signed),
        "no key": (b"nonsense", signed),
        "not JSON": (key.public_pem, b"nonsense"),
        "other JSON": (key.public_pem, b"[]"),
        "no content": (key.public_pem, b"{}"),
    }
    for name, (pem_bytes, content) in cases.items():
        public.write_bytes(pem_bytes)
        signature.write_bytes(content)
        with pytest.raises(PawlineError, match=r"^tampered: ") as caught:
            signing.verify_file(file, signature, public)
        assert "\n" not in str(caught.value), name
    with pytest.raises(PawlineError, match="No such file"):
        signing.verify_file(file, tmp_path / "gone", public)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "is no private key in PEM"),
        (pem(rsa.generate_private_key(65537, 2048)), "is a key of another kind"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "is a key of another kind"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"secret"), "is protected by a password"),
        (
            ec.generate_private_key(ec.SECP256R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "is no private key in PEM",
        ),
    ],
)
def test_what_is_no_usable_key_is_said_in_one_line(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(path))
    with pytest.raises(PawlineError, match=message) as caught:
        signing.load_key()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_named_key_that_is_not_there_is_not_made(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signing.KEY_VARIABLE, str(tmp_path / "gone.pem"))
    with pytest.raises(PawlineError, match=r"there is no .*gone\.pem"):
        signing.load_key()
    assert not config.exists()
    monkeypatch.setenv(signing.KEY_VARIABLE, str(tmp_path))
    with pytest.raises(PawlineError, match="Is a directory"):
        signing.load_key()

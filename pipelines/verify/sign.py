"""Signing a run directory with a key or a certificate, offline; the extra `[signing]`.

The signature, by the OpenSSF's model-signing, is over the SHA-256 of every file of the run, the manifest included.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecd_deploy.errors import ArtefactError, DigestError, UsageError, reraise_machine_fault
from ecd_deploy.pipelines.record.names import LOCK_NAME, SIGNATURE_NAME
from ecd_deploy.quiet import library_quiet

if TYPE_CHECKING:
    from collections.abc import Sequence


def sign(root: Path, key: Path, certificate: Path | None = None, chain: Sequence[Path] = ()) -> Path:
    """Sign every file of a run directory; returns the path of the signature.

    Args:
        root: of the run; whoever signs should have verified it.
        key: private key of an elliptic curve (P-256, P-384 or P-521), PEM.
        certificate: of that key, PEM; without it the bare key signs.
        chain: certificates that lead from it to a root.

    Raises:
        UsageError: the extra is not installed, or the key or a certificate cannot be used.
    """
    hashing, signing, _ = _library()
    target = root / SIGNATURE_NAME
    config = signing.Config()
    try:
        if certificate is None:
            config.use_elliptic_key_signer(private_key=key)
        else:
            # The library takes no empty chain; the certificate itself adds nothing to one.
            config.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=[*chain] or [certificate]
            )
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"cannot sign with {key}: {error}") from error
    target.unlink(missing_ok=True)
    config.set_hashing_config(_hashing(hashing, root))
    try:
        config.sign(root, target)
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(f"cannot sign {root}: {error}") from error
    return target


def check_signature(root: Path, public_key: Path | None = None, chain: Sequence[Path] = ()) -> None:
    """Check the signature of a run directory, with a public key or a chain of certificates.

    Raises:
        UsageError: the extra is not installed, or the key or a certificate cannot be used.
        DigestError: there is no signature, it is another key's, or a file is not the signed one.
    """
    hashing, _, verifying = _library()
    signature = root / SIGNATURE_NAME
    if not signature.is_file():
        raise DigestError(f"{root} is not signed: it has no {SIGNATURE_NAME}")
    config = verifying.Config()
    try:
        if public_key is not None:
            config.use_elliptic_key_verifier(public_key=public_key)
        else:
            config.use_certificate_verifier(certificate_chain=chain)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"cannot verify with {public_key or [str(path) for path in chain]}: {error}") from error
    config.set_hashing_config(_hashing(hashing, root))
    try:
        with library_quiet():  # it warns by a method of `logging` that is deprecated
            config.verify(root, signature)
    except Exception as error:
        reraise_machine_fault(error)
        raise DigestError(f"the signature of {root} is not valid: {error}") from error


def _hashing(hashing: Any, root: Path) -> Any:
    # Ignored paths are ours, never the signature's own word for it.
    return hashing.Config().set_ignored_paths(paths=[root / LOCK_NAME, root / SIGNATURE_NAME], ignore_git_paths=False)


def _library() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise UsageError(f"signing needs the extra: pip install 'ecd-deploy[signing]' ({error})") from error
    return hashing, signing, verifying

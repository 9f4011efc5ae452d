"""Keys that a person can prove to hold, and signatures by them.

    ed25519:<64 hex digits>   a public key (RFC 8032)
    eip191:0x<40 hex digits>  a wallet: an Ethereum address, proved by personal_sign (ERC-191, version 0x45)

A signature has one accepted form: Ed25519 with s below the group's order (the library's check), ECDSA with r and s in
range, s in the lower half (EIP-2) and v of 27 or 28. Who sees a signature cannot make a second one of it.
"""

import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from eth_hash.auto import keccak
from eth_keys.constants import SECPK1_N
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature

_FORM = re.compile(r"ed25519:[0-9a-f]{64}|eip191:0x[0-9a-f]{40}")
_P = 2**255 - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# y of the eight points whose order divides 8: under such a "public key" anybody's signature holds.
_SMALL_ORDER = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})
NOBODY = "ed25519:" + "ff" * 32  # a key of the right form that verifies nothing, for the same work


def canonical_key(text: str) -> str:
    """A key in its one form, lower case. Raises ValueError on another form, and on an Ed25519 key of small order."""
    key = text.strip().lower()
    if not _FORM.fullmatch(key):
        raise ValueError("a key is ed25519:<64 hex digits> or eip191:0x<40 hex digits>")
    if key.startswith("ed25519:") and _y(key) in _SMALL_ORDER:
        raise ValueError("an Ed25519 key of small order: signatures under it prove nothing")
    return key


def _y(key: str) -> int:
    return (int.from_bytes(bytes.fromhex(key.partition(":")[2]), "little") & (2**255 - 1)) % _P


def verifies(key: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes for Ed25519, r ‖ s ‖ v of 65 for a wallet) of `message` is by `key`, canonical."""
    kind, _, public = key.partition(":")
    if kind == "ed25519":
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True
    return kind == "eip191" and recovered_address(message, signature) == public


def recovered_address(message: bytes, signature: bytes) -> str | None:
    """Address 0x… whose wallet signed `message` by personal_sign; None if the signature is not in its one form."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if not 0 < r < SECPK1_N or not 0 < s <= SECPK1_N // 2:
        return None
    try:
        public = Signature(vrs=(signature[64] - 27, r, s)).recover_public_key_from_msg_hash(personal_hash(message))
    except BadSignature:
        return None
    return public.to_address()


def personal_hash(message: bytes) -> bytes:
    """What personal_sign signs: Keccak-256 of prefix, length in decimal digits, message."""
    return keccak(b"\x19Ethereum Signed Message:\n%d%b" % (len(message), message))

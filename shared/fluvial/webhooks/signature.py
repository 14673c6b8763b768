"""Signatures of webhooks: Ed25519 over the time and the body (spec 7.1)."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fluvial.model.signing_keys import SigningKey, encode_base64url

#: The field of the request that has the signature.
SIGNATURE_FIELD = "Webhook-Signature"


def make_key(now_ms: int) -> SigningKey:
    """A new random key, which signs at once."""
    private = Ed25519PrivateKey.generate()
    return SigningKey(private.private_bytes_raw(), private.public_key().public_bytes_raw(), now_ms, now_ms)


def sign(key: SigningKey, body: bytes, now_ms: int) -> str:
    """The value of the signature's field.

    "`Webhook-Signature` is an Ed25519 signature over `<timestamp>.<raw_body>`, where `<timestamp>` is the decimal Unix
    timestamp from the `t` parameter and `<raw_body>` is the exact request body bytes." -- spec 7.1
    """
    timestamp = now_ms // 1_000
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(b"%d.%s" % (timestamp, body))
    return f"t={timestamp},kid={key.kid},ed25519={encode_base64url(signature)}"

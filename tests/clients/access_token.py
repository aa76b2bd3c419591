"""Checks access tokens as a careful owner of a service does: with the issuer's keys, or with a session's key that one of
them endorses. Other scripts import it."""

import base64
import hashlib
import json

import jwt

# All that the service signs with. Each key names its one algorithm, and PyJWT holds a token to that.
ALGORITHMS = ["ES256", "ES384", "EdDSA", "RS256", "PS256"]
THUMBPRINT = {"EC": ["crv", "kty", "x", "y"], "OKP": ["crv", "kty", "x"], "RSA": ["e", "kty", "n"]}


def thumbprint(jwk):
    """RFC 7638 with SHA-256."""
    required = {name: jwk[name] for name in THUMBPRINT[jwk["kty"]]}
    digest = hashlib.sha256(json.dumps(required, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class Checker:
    def __init__(self, jwks_url, issuer, audience, algorithms=ALGORITHMS):
        self.issuer_keys = {key.key_id: key for key in jwt.PyJWKClient(jwks_url).get_signing_keys()}
        self.issuer, self.audience, self.algorithms = issuer, audience, algorithms

    def check(self, token):
        """The claims of a good token; a `PyJWTError` tells what is wrong with any other."""
        header = jwt.get_unverified_header(token)
        if header.get("typ") != "at+jwt":
            raise jwt.InvalidTokenError("not an access token")
        key = self.issuer_keys.get(header.get("kid"))
        if key:
            return self.verified(token, key)

        endorsed = self.endorsed(header.get("skc"))
        jwk = endorsed["cnf"]["jwk"]
        if thumbprint(jwk) != header.get("kid"):
            raise jwt.InvalidKeyError("another key is endorsed")
        claims = self.verified(token, jwt.PyJWK(jwk), require=["sid"])
        if (claims["sid"], claims["sub"]) != (endorsed["sid"], endorsed["sub"]):
            raise jwt.InvalidTokenError("the key of another session")
        return claims

    def verified(self, token, key, require=()):
        options = {"require": ["iss", "aud", "sub", "exp", "iat", *require]}
        return jwt.decode(token, key, self.algorithms, options, issuer=self.issuer, audience=self.audience)

    def endorsed(self, endorsement):
        """What the issuer says of a session's key."""
        if not isinstance(endorsement, str):
            raise jwt.InvalidKeyError("neither the issuer's key nor an endorsed one")
        header = jwt.get_unverified_header(endorsement)
        if header.get("typ") != "session-key+jwt":
            raise jwt.InvalidTokenError("not an endorsement")
        key = self.issuer_keys.get(header.get("kid"))
        if not key:
            raise jwt.InvalidKeyError("not endorsed by the issuer")
        options = {"require": ["iss", "sid", "sub", "exp", "cnf"]}
        return jwt.decode(endorsement, key, self.algorithms, options, issuer=self.issuer)

"""PyJWT checks a token with the secret that its audience shares with the issuer, and its claims are printed as JSON.

    hs256.py SECRET_JWK_FILE TOKEN JWKS_URL ISSUER AUDIENCE

With the issuer's public keys the same token is refused, and so is one that was changed.
"""

import json
import pathlib
import sys

import jwt

from access_token import Checker

secret_file, token, jwks_url, issuer, audience = sys.argv[1:]
secret = jwt.PyJWK(json.loads(pathlib.Path(secret_file).read_text()))
assert secret.key_id == jwt.get_unverified_header(token)["kid"]


def check(token):
    options = {"require": ["iss", "aud", "sub", "exp", "iat"]}
    return jwt.decode(token, secret, ["HS256"], options, issuer=issuer, audience=audience)


claims = check(token)
head, payload, signature = token.split(".")
other = "A" if payload[20] != "A" else "B"
public = Checker(jwks_url, issuer, audience).check
for what, refuse, forged in (
    ("a changed claim", check, f"{head}.{payload[:20]}{other}{payload[21:]}.{signature}"),
    ("no signature", check, f"{head}.{payload}."),
    ("a shared secret where a public key is expected", public, token),
):
    try:
        refuse(forged)
    except jwt.PyJWTError:
        continue
    sys.exit(f"accepted, though bad: {what}")
print(json.dumps(claims))

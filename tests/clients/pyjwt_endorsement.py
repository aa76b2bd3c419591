"""PyJWT checks a session's token with the issuer's keys alone, through the endorsement in the token's header.

    pyjwt_endorsement.py BASE_URL TOKEN
"""

import sys

import jwt

base_url, token = sys.argv[1:]
issuer_keys = jwt.PyJWKClient(f"{base_url}/.well-known/jwks.json")
assert len(issuer_keys.get_signing_keys()) == 1


def check(token):
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "at+jwt" and header["alg"] == "ES256", header

    endorsement = header["skc"]
    assert jwt.get_unverified_header(endorsement)["typ"] == "session-key+jwt"
    issuer_key = issuer_keys.get_signing_key_from_jwt(endorsement)
    endorsed = jwt.decode(endorsement, issuer_key, algorithms=["ES256"], issuer="http://127.0.0.1:50051",
                          options={"require": ["iss", "sid", "sub", "exp"]})

    session_key = jwt.PyJWK(endorsed["cnf"]["jwk"])
    assert session_key.key_id == header["kid"] != issuer_key.key_id
    claims = jwt.decode(token, session_key, algorithms=["ES256"], issuer="http://127.0.0.1:50051", audience="orders")
    assert claims["sid"] == endorsed["sid"] and claims["sub"] == endorsed["sub"]
    return claims, endorsed


claims, endorsed = check(token)
assert claims["exp"] <= endorsed["exp"], "the token outlives its key"

header, payload, signature = token.split(".")
other = "A" if payload[20] != "A" else "B"
for forged in f"{header}.{payload[:20]}{other}{payload[21:]}.{signature}", f"{header}.{payload}.":
    try:
        check(forged)
    except jwt.PyJWTError as refusal:
        print(type(refusal).__name__)
    else:
        sys.exit("a tampered token was accepted")

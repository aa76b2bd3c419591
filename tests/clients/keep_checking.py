"""PyJWT checks one token after another with a JWKS that it keeps, as a service does while the issuer's keys rotate.

    keep_checking.py JWKS_URL ISSUER AUDIENCE ALGORITHM KEEP_SECONDS COOLDOWN_SECONDS

Reads tokens that the issuer's own keys signed, one a line, and answers each at once: `ok KID` or `refused ERROR`. A JWKS
is fetched anew after KEEP_SECONDS, and for an unknown kid not before COOLDOWN_SECONDS have passed since the last time.
"""

import sys

import jwt

jwks_url, issuer, audience, algorithm, keep, cooldown = sys.argv[1:]
issuer_keys = jwt.PyJWKClient(jwks_url, lifespan=float(keep), cooldown_duration=float(cooldown))
checked, refused, seen = 0, 0, set()


def check(token):
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    key = issuer_keys.get_signing_key(header.get("kid"))
    jwt.decode(token, key, [algorithm], {"require": ["exp"]}, issuer=issuer, audience=audience)
    return key.key_id


for line in sys.stdin:
    checked += 1
    try:
        kid = check(line.strip())
    except jwt.PyJWTError as refusal:
        refused += 1
        print(f"refused {type(refusal).__name__}: {refusal}", flush=True)
    else:
        seen.add(kid)
        print(f"ok {kid}", flush=True)

print(f"{checked} checked, {refused} refused, {len(seen)} keys seen")
sys.exit(refused > 0)

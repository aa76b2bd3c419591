"""joserfc decrypts a token, PyJWT checks what was in it, and its claims are printed as one line of JSON.

    decrypt.py KEY_FILE TOKEN_FILE JWKS_URL ISSUER AUDIENCE

KEY_FILE is the private JWK that the token is encrypted for.
"""

import json
import pathlib
import sys

import jwt
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import import_key

from access_token import Checker

key_file, token_file, jwks_url, issuer, audience = sys.argv[1:]
key = import_key(json.loads(pathlib.Path(key_file).read_text()))
try:
    decrypted = jwe.decrypt_compact(
        pathlib.Path(token_file).read_text().strip(), key, ["ECDH-ES+A256KW", "RSA-OAEP-256", "A256GCM"]
    )
    if decrypted.protected.get("cty") != "JWT":
        sys.exit("refused: not said to hold a JWT")
    claims = Checker(jwks_url, issuer, audience).check(decrypted.plaintext.decode())
except (JoseError, jwt.PyJWTError, ValueError) as refusal:
    sys.exit(f"refused: {type(refusal).__name__}: {refusal}")
print(json.dumps(claims))

"""PyJWT checks a session's token with nothing but the JWKS URL, by the snippet of the README.

    pyjwt_jwks_url.py README BASE_URL TOKEN TOKEN_FOR_ANOTHER_AUDIENCE
"""

import pathlib
import re
import sys

import jwt

readme, base_url, token, for_another = sys.argv[1:]
[snippet] = re.findall(r"```python\n(.*?)```", pathlib.Path(readme).read_text(), re.S)
names = {}
exec(snippet.replace("http://127.0.0.1:50051/.well-known", f"{base_url}/.well-known"), names)
check = names["check"]

claims = check(token)
assert claims["iss"] == "http://127.0.0.1:50051" and claims["aud"] == ["orders"], claims
assert claims["sub"] and claims["sid"] and claims["device_type"] == "web" and claims["gen"] == 0, claims

header, payload, signature = token.split(".")
other = "A" if payload[20] != "A" else "B"
foreign_header = jwt.encode({}, "x" * 32, headers={"kid": "../keys?x=&", "typ": "at+jwt"}).split(".")[0]
for what, forged in {
    "another audience": for_another,
    "a changed claim": f"{header}.{payload[:20]}{other}{payload[21:]}.{signature}",
    "no signature": f"{header}.{payload}.",
    "a key that isn't there": f"{foreign_header}.{payload}.{signature}",
}.items():
    try:
        check(forged)
    except jwt.PyJWTError as refusal:
        print(f"{what}: {type(refusal).__name__}")
    else:
        sys.exit(f"{what} was accepted")

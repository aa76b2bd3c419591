"""PyJWT accepts the good tokens and refuses the bad ones.

    check_tokens.py FILE

FILE is JSON: {"issuer": …, "audience": …, "jwks_url": …, "algorithms": […], "good": {NAME: TOKEN}, "bad": {NAME: TOKEN}}.
"""

import json
import pathlib
import sys

import jwt

from access_token import Checker

given = json.loads(pathlib.Path(sys.argv[1]).read_text())
checker = Checker(given["jwks_url"], given["issuer"], given["audience"], given["algorithms"])
wrong = []

for name, token in given["good"].items():
    try:
        checker.check(token)
    except jwt.PyJWTError as refusal:
        wrong.append(f"refused, though good: {name}: {type(refusal).__name__}: {refusal}")

for name, token in given["bad"].items():
    try:
        checker.check(token)
    except jwt.PyJWTError as refusal:
        print(f"{name}: {type(refusal).__name__}: {refusal}")
    else:
        wrong.append(f"accepted, though bad: {name}: {token}")

if wrong:
    sys.exit("\n".join(wrong))

"""Encrypts a token in ways that its receiver must accept, and in ways that it must refuse.

    encrypted_tokens.py FOLDER TOKEN

Writes into FOLDER the receiver's private keys as ALG.jwk, and what is encrypted for each as ALG.good.NAME or ALG.bad.NAME.
"""

import json
import pathlib
import sys

from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

folder, token = pathlib.Path(sys.argv[1]), sys.argv[2]
ANY = jwe.JWERegistry(algorithms=["ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW", "RSA-OAEP", "RSA-OAEP-256",
                                  "A128GCM", "A256GCM", "A256CBC-HS512", "DEF"])


def generate(alg):
    parameters = {"alg": alg, "use": "enc"}
    if alg == "RSA-OAEP-256":
        return RSAKey.generate_key(2048, parameters, auto_kid=True)
    return ECKey.generate_key("P-256", parameters, auto_kid=True)


def encrypt(key, header, plaintext):
    # joserfc holds a key to its algorithm, which whoever encrypts wrongly does not.
    public = {name: value for name, value in key.as_dict(private=False).items() if name not in ("alg", "use", "key_ops")}
    return jwe.encrypt_compact(header, plaintext, type(key).import_key(public), registry=ANY)


for alg, other_alg in {"ECDH-ES+A256KW": "ECDH-ES+A128KW", "RSA-OAEP-256": "RSA-OAEP"}.items():
    key = generate(alg)
    (folder / f"{alg}.jwk").write_text(json.dumps(key.as_dict(private=True)))
    header = {"alg": alg, "enc": "A256GCM", "cty": "JWT", "kid": key.kid}
    tokens = {
        "good.token": encrypt(key, header, token),
        "bad.other-alg": encrypt(key, header | {"alg": other_alg}, token),
        "bad.for-another-key": encrypt(generate(alg), header, token),
    }
    if alg == "ECDH-ES+A256KW":
        # Faults that have nothing to do with how the key is wrapped.
        parts = tokens["good.token"].split(".")
        other = "A" if parts[3][20] != "A" else "B"
        tokens |= {
            "bad.other-enc": encrypt(key, header | {"enc": "A256CBC-HS512"}, token),
            "bad.shorter-enc": encrypt(key, header | {"enc": "A128GCM"}, token),
            "bad.no-cty": encrypt(key, {name: header[name] for name in ("alg", "enc", "kid")}, token),
            "bad.compressed": encrypt(key, header | {"zip": "DEF"}, token),
            "bad.holds-no-token": encrypt(key, header, '{"sub": "anna"}'),
            "bad.holds-no-signature": encrypt(key, header, token.rpartition(".")[0] + "."),
            "bad.changed": ".".join([*parts[:3], parts[3][:20] + other + parts[3][21:], parts[4]]),
            "bad.not-encrypted": token,
        }
    for name, encrypted in tokens.items():
        (folder / f"{alg}.{name}").write_text(encrypted)

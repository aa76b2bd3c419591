"""A service proves itself in each way that there is: grpcio, which learns the contract through reflection, brings the proof;
PyJWT signs what the service signs itself and checks the token that comes back.

    service_token.py key PRIVATE_KEY_FILE
    service_token.py assertion ISSUER CLIENT_ID PRIVATE_KEY_FILE
    service_token.py secret ASKING CLIENT_SECRET
    service_token.py private_key_jwt ASKING PRIVATE_KEY_FILE
    service_token.py federated ASKING TOKEN_FILE
    service_token.py mtls ASKING CA_FILE CERTIFICATE_FILE KEY_FILE

ASKING is ADDRESS ISSUER CLIENT_ID AUDIENCE. The first makes a key and prints its JWK set. The second prints an assertion,
for whoever brings it. The others print the claims of the token, and see that there is none for another secret, for the
same assertion once more, for a token of the platform that is changed, and without the certificate.
"""

import base64
import json
import pathlib
import sys
import time
import uuid

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from jwt.algorithms import ECAlgorithm

ALGORITHM = "ES256"


def make_key(file):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pathlib.Path(file).write_bytes(pem)
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    print(json.dumps({"keys": [{**jwk, "kid": "orders-1", "use": "sig", "alg": ALGORITHM}]}))


def sign(issuer, client_id, file):
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": issuer,
        "iat": now,
        "exp": now + 60,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode(claims, pathlib.Path(file).read_text(), ALGORITHM, headers={"kid": "orders-1"})


def print_assertion(*arguments):
    print(sign(*arguments))


def forged(token):
    signed, signature = token.rsplit(".", 1)
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def asserted(assertion):
    return {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }


# What each way shows over which connection, None being a plain one, and in a request: what is good, what is not, and what
# the token is bound to.


def by_secret(issuer, client_id, secret):
    return (None, {"client_secret": secret}), (None, {"client_secret": f"{secret}x"}), None


def by_own_key(*arguments):
    own = asserted(sign(*arguments))
    return (None, own), (None, own), None


def by_platform(issuer, client_id, file):
    token = pathlib.Path(file).read_text()
    return (None, asserted(token)), (None, asserted(forged(token))), None


def by_certificate(issuer, client_id, *files):
    roots, certificate, key = (pathlib.Path(file).read_bytes() for file in files)
    own = grpc.ssl_channel_credentials(roots, private_key=key, certificate_chain=certificate)
    digest = x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
    cnf = {"x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}
    return (own, {}), (grpc.ssl_channel_credentials(roots), {}), cnf


WAYS = {"secret": by_secret, "private_key_jwt": by_own_key, "federated": by_platform, "mtls": by_certificate}


def call(address, credentials, method, **fields):
    service, name = method.split("/")
    with grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        described = pool.FindServiceByName(f"tessera.v1.{service}").methods_by_name[name]
        stub = channel.unary_unary(
            f"/tessera.v1.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        return stub(message_factory.GetMessageClass(described.input_type)(**fields), timeout=30)


def prove(way, address, issuer, client_id, audience, *given):
    def ask(credentials, proof):
        asking = {"client_id": client_id, "audience": [audience], "scope": ["read"]}
        return call(address, credentials, "Auth/IssueServiceToken", **asking, **proof).tokens.access_token

    good, bad, cnf = WAYS[way](issuer, client_id, *given)
    token = ask(*good)
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "at+jwt", header
    key = jwt.PyJWKSet.from_json(call(address, good[0], "Keys/GetJwks").jwks_json)[header["kid"]]
    options = {"require": ["exp", "iat"]}
    claims = jwt.decode(token, key, ["ES256"], options, issuer=issuer, audience=audience, subject=client_id)
    assert claims.get("cnf") == cnf, claims
    try:
        ask(*bad)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            raise
    else:
        sys.exit(f"{way}: a token was given for what proves nothing")
    print(json.dumps(claims))


command, *arguments = sys.argv[1:]
if command in WAYS:
    prove(command, *arguments)
else:
    {"key": make_key, "assertion": print_assertion}[command](*arguments)

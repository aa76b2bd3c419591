"""A service proves itself with a key of its own: PyJWT signs the assertion, grpcio brings it.

    service_token.py key PRIVATE_KEY_FILE
    service_token.py assertion ISSUER CLIENT_ID PRIVATE_KEY_FILE ALGORITHM
    service_token.py token ADDRESS ISSUER CLIENT_ID PRIVATE_KEY_FILE ALGORITHM AUDIENCE

The first makes a key and prints its JWK set. The second prints an assertion, for whoever brings it. The third prints the
token, and sees that the same assertion is refused when it comes again.
"""

import json
import pathlib
import sys
import time
import uuid

import grpc
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from jwt.algorithms import ECAlgorithm


def make_key(file):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pathlib.Path(file).write_bytes(pem)
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    print(json.dumps({"keys": [{**jwk, "kid": "orders-1", "use": "sig", "alg": "ES256"}]}))


def assertion_of(issuer, client_id, file, algorithm):
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": issuer,
        "iat": now,
        "exp": now + 60,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode(claims, pathlib.Path(file).read_text(), algorithm, headers={"kid": "orders-1"})


def print_assertion(*arguments):
    print(assertion_of(*arguments))


def get_token(address, issuer, client_id, file, algorithm, audience):
    channel = grpc.insecure_channel(address)
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("tessera.v1.Auth").methods_by_name["IssueServiceToken"]
    ask = channel.unary_unary(
        "/tessera.v1.Auth/IssueServiceToken",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    assertion = assertion_of(issuer, client_id, file, algorithm)
    request = message_factory.GetMessageClass(method.input_type)(
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        client_assertion=assertion,
        audience=[audience],
        scope=["read"],
    )
    print(ask(request, timeout=30).tokens.access_token)
    try:
        ask(request, timeout=30)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            raise
    else:
        sys.exit("the same assertion was taken twice")


command, *arguments = sys.argv[1:]
{"key": make_key, "assertion": print_assertion, "token": get_token}[command](*arguments)

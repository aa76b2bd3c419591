"""Somebody holds a key and shows it with each call (DPoP, RFC 9449): PyJWT signs the proofs, grpcio brings them. Takes the
nonce that the service tells, where it demands one.

    dpop.py ADDRESS USERNAME PASSWORD
"""

import base64
import hashlib
import sys
import time
import uuid

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from jwt.algorithms import ECAlgorithm

address, username, password = sys.argv[1:]
channel = grpc.insecure_channel(address)
pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
nonce = None


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_jwk(key):
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: jwk[name] for name in ["kty", "crv", "x", "y"]}


def prove(key, path, token=None):
    claims = {"jti": str(uuid.uuid4()), "htm": "POST", "htu": f"https://{address}{path}", "iat": int(time.time())}
    if token:
        claims["ath"] = base64url(hashlib.sha256(token.encode()).digest())
    if nonce:
        claims["nonce"] = nonce
    return jwt.encode(claims, key, "ES256", headers={"typ": "dpop+jwt", "jwk": public_jwk(key)})


def call(method, request, key, token=None):
    """The reply, with a second attempt where the service tells a nonce."""
    global nonce
    service, name = method.split("/")
    described = pool.FindServiceByName(f"tessera.v1.{service}").methods_by_name[name]
    path = f"/tessera.v1.{method}"
    stub = channel.unary_unary(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
    )
    message = message_factory.GetMessageClass(described.input_type)(**request)
    for attempt in range(2):
        metadata = [("dpop", prove(key, path, token))]
        if token:
            metadata.append(("authorization", f"DPoP {token}"))
        try:
            return stub(message, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            told = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
            if attempt or "dpop-nonce" not in told:
                raise
            nonce = told["dpop-nonce"]


def refused(method, request, key, token=None):
    try:
        call(method, request, key, token)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
    else:
        sys.exit(f"{method} was to be refused")


key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
jwk = public_jwk(key)
thumbprint = base64url(
    hashlib.sha256(f'{{"crv":"{jwk["crv"]}","kty":"{jwk["kty"]}","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'.encode()).digest()
)

login = call("Auth/Login", {"username": username, "password": password, "device": {"type": "desktop"}}, key)
assert login.tokens.token_type == "DPoP" and login.session.dpop_jkt == thumbprint, login.session
claims = jwt.decode(login.tokens.access_token, options={"verify_signature": False})
assert claims["cnf"] == {"jkt": thumbprint}, claims
assert nonce, "the service demands one"

shown = call("Session/GetSession", {"session_id": login.tokens.session_id}, key, login.tokens.access_token)
assert shown.session.dpop_jkt == thumbprint

refused("Auth/Refresh", {"refresh_token": login.tokens.refresh_token}, other)
tokens = call("Auth/Refresh", {"refresh_token": login.tokens.refresh_token}, key).tokens
assert tokens.token_type == "DPoP"
shown = call("Session/GetSession", {"session_id": tokens.session_id}, key, tokens.access_token)
assert shown.session.generation == 1

refused("Session/GetSession", {"session_id": tokens.session_id}, other, tokens.access_token)
call("Auth/Logout", {}, key, tokens.access_token)
refused("Session/GetSession", {"session_id": tokens.session_id}, key, tokens.access_token)
print("signed in, called, refreshed, called, refused")

"""grpcio signs in, lists sessions, refreshes, verifies, logs out and sees the refusal. All that it knows of the contract
it learns through reflection.

    grpcio_session.py ADDRESS USERNAME PASSWORD
"""

import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, username, password = sys.argv[1:]
channel = grpc.insecure_channel(address)
database = ProtoReflectionDescriptorDatabase(channel)
pool = descriptor_pool.DescriptorPool(database)


def call(method, request, token=None):
    """The reply and its metadata."""
    service, name = method.split("/")
    described = pool.FindServiceByName(f"tessera.v1.{service}").methods_by_name[name]
    stub = channel.unary_unary(
        f"/tessera.v1.{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
    )
    metadata = [("authorization", f"Bearer {token}")] if token else []
    reply, done = stub.with_call(
        message_factory.GetMessageClass(described.input_type)(**request), metadata=metadata, timeout=30
    )
    return reply, dict(done.initial_metadata()) | dict(done.trailing_metadata())


def messages(*named):
    """Classes of messages of which there is no generated code here; a field is its number and type."""
    file = descriptor_pb2.FileDescriptorProto(name="status.proto", package="google.rpc")
    for name, fields in named:
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            message.field.add(name=field, number=number, type=kind, label=3 if repeated else 1)
    own = descriptor_pool.DescriptorPool()
    own.Add(file)
    return [message_factory.GetMessageClass(own.FindMessageTypeByName(f"google.rpc.{name}")) for name, _ in named]


INT, STRING, BYTES = 5, 9, 12
Details, Detail, ErrorInfo = messages(
    ("Status", {"code": (1, INT, False), "message": (2, STRING, False), "details": (3, BYTES, True)}),
    ("Any", {"type_url": (1, STRING, False), "value": (2, BYTES, False)}),
    ("ErrorInfo", {"reason": (1, STRING, False), "domain": (2, STRING, False)}),
)


def refusal(method, request, token=None):
    """The code and the reason of a call that must be refused."""
    try:
        call(method, request, token)
    except grpc.RpcError as error:
        [details] = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
        details = [Detail.FromString(detail) for detail in Details.FromString(details).details]
        [info] = [ErrorInfo.FromString(detail.value) for detail in details if detail.type_url.endswith("ErrorInfo")]
        assert info.domain == "tessera", info
        return error.code(), info.reason
    sys.exit(f"{method} was to be refused")


# The newer reflection differs from the older one in its name alone.
ask = channel.stream_stream(
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
)
[answer] = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
listed = {service.name for service in answer.list_services_response.service}
assert {"tessera.v1.Auth", "tessera.v1.Session", "tessera.v1.Keys"} <= listed <= set(database.get_services()) | {
    "grpc.reflection.v1.ServerReflection"
}, listed

wrong = {"username": username, "password": "not the password"}
assert refusal("Auth/Login", wrong) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS")
device = {"type": "desktop", "name": "grpcio"}
login, metadata = call("Auth/Login", {"username": username, "password": password, "device": device})
assert metadata["x-request-id"], metadata
assert login.tokens.token_type == "Bearer" and login.session.device.name == "grpcio"

sessions, _ = call("Session/ListSessions", {}, login.tokens.access_token)
[session] = sessions.sessions
assert session.session_id == login.tokens.session_id and session.generation == 0
assert "grpc-python" in session.user_agent, session.user_agent

refreshed, _ = call("Auth/Refresh", {"refresh_token": login.tokens.refresh_token})
tokens = refreshed.tokens
assert tokens.session_id == session.session_id and tokens.refresh_token != login.tokens.refresh_token

verified, _ = call("Auth/VerifyToken", {"token": tokens.access_token, "audience": "tessera"})
assert verified.active and verified.claims.gen == 1 and verified.claims.sid == session.session_id
assert verified.claims.expire_time == tokens.access_expire_time

jwks, _ = call("Keys/GetJwks", {})
assert [key.alg for key in jwks.keys] == ["ES256"] and jwks.keys[0].kid in jwks.jwks_json

call("Auth/Logout", {}, tokens.access_token)
ended = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REVOKED")
assert refusal("Session/ListSessions", {}, tokens.access_token) == ended
assert refusal("Auth/Refresh", {"refresh_token": tokens.refresh_token}) == ended
verified, _ = call("Auth/VerifyToken", {"token": tokens.access_token})
assert not verified.active and verified.reason == "TOKEN_REVOKED"
assert refusal("Session/ListSessions", {}) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
assert refusal("Auth/VerifyToken", {"token": "a.b.c.d"}) == (grpc.StatusCode.INVALID_ARGUMENT, "TOKEN_MALFORMED")
print("signed in, listed, refreshed, verified, logged out, refused")

"""A service proves itself with the certificate of its connection: grpcio, which learns the contract through reflection.

    mtls.py ADDRESS CA_FILE CERTIFICATE_FILE KEY_FILE CLIENT_ID AUDIENCE

Prints the token, and sees that without the certificate there is none.
"""

import pathlib
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, ca, certificate, key, client_id, audience = sys.argv[1:]
roots = pathlib.Path(ca).read_bytes()


def ask(**shown):
    credentials = grpc.ssl_channel_credentials(root_certificates=roots, **shown)
    with grpc.secure_channel(address, credentials) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName("tessera.v1.Auth").methods_by_name["IssueServiceToken"]
        stub = channel.unary_unary(
            "/tessera.v1.Auth/IssueServiceToken",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        request = message_factory.GetMessageClass(method.input_type)(client_id=client_id, audience=[audience])
        return stub(request, timeout=30).tokens.access_token


own = {
    "certificate_chain": pathlib.Path(certificate).read_bytes(),
    "private_key": pathlib.Path(key).read_bytes(),
}
print(ask(**own))
try:
    ask()
except grpc.RpcError as error:
    if error.code() != grpc.StatusCode.UNAUTHENTICATED:
        raise
else:
    sys.exit("it was given a token without its certificate")

// A service proves itself with a key of its own: jose signs the assertion, grpc-js brings it.
//
//     service_token.mjs key PRIVATE_KEY_FILE
//     service_token.mjs token PROTO_FOLDER ADDRESS ISSUER CLIENT_ID PRIVATE_KEY_FILE AUDIENCE
//
// The first makes a key and prints its JWK set. The second prints the token, and sees that the same assertion is refused
// when it comes again.

import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { exportJWK, exportPKCS8, generateKeyPair, importPKCS8, SignJWT } from "jose";

const ALGORITHM = "EdDSA";

const makeKey = async (file) => {
    const { privateKey, publicKey } = await generateKeyPair(ALGORITHM, { crv: "Ed25519", extractable: true });
    writeFileSync(file, await exportPKCS8(privateKey));
    const jwk = { ...(await exportJWK(publicKey)), kid: "orders-1", use: "sig", alg: ALGORITHM };
    console.log(JSON.stringify({ keys: [jwk] }));
};

const getToken = async (folder, address, issuer, clientId, file, audience) => {
    const key = await importPKCS8(readFileSync(file, "utf8"), ALGORITHM);
    const assertion = await new SignJWT({})
        .setProtectedHeader({ alg: ALGORITHM, kid: "orders-1", typ: "client-authentication+jwt" })
        .setIssuer(clientId)
        .setSubject(clientId)
        .setAudience(issuer)
        .setIssuedAt()
        .setExpirationTime("1m")
        .setJti(randomUUID())
        .sign(key);
    const contract = protoLoader.loadSync("tessera/v1/auth.proto", { includeDirs: [folder], keepCase: true });
    const { Auth } = grpc.loadPackageDefinition(contract).tessera.v1;
    const auth = new Auth(address, grpc.credentials.createInsecure());
    const ask = promisify(auth.IssueServiceToken.bind(auth));
    const request = {
        client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        client_assertion: assertion,
        audience: [audience],
        scope: ["read"],
    };
    const reply = await ask(request);
    console.log(reply.tokens.access_token);
    const again = await ask(request).then(
        () => "taken twice",
        (error) => error.code,
    );
    if (again !== grpc.status.UNAUTHENTICATED) throw new Error(`the same assertion: ${again}`);
    auth.close();
};

const [command, ...given] = process.argv.slice(2);
await { key: makeKey, token: getToken }[command](...given);

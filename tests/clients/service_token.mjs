// A service proves itself in each way that there is: grpc-js brings the proof, jose signs what the service signs itself and
// checks the token that comes back.
//
//     service_token.mjs key PRIVATE_KEY_FILE
//     service_token.mjs secret ASKING CLIENT_SECRET
//     service_token.mjs private_key_jwt ASKING PRIVATE_KEY_FILE
//     service_token.mjs federated ASKING TOKEN_FILE
//     service_token.mjs mtls ASKING CA_FILE CERTIFICATE_FILE KEY_FILE
//
// ASKING is PROTO_FOLDER ADDRESS ISSUER CLIENT_ID AUDIENCE. The first makes a key and prints its JWK set. The others print
// the claims of the token, and see that there is none for another secret, for the same assertion once more, for a token of
// the platform that is changed, and without the certificate.

import { strict as assert } from "node:assert";
import { randomUUID, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import {
    createLocalJWKSet, exportJWK, exportPKCS8, generateKeyPair, importPKCS8, jwtVerify, SignJWT,
} from "jose";

const ALGORITHM = "EdDSA";

const makeKey = async (file) => {
    const { privateKey, publicKey } = await generateKeyPair(ALGORITHM, { crv: "Ed25519", extractable: true });
    writeFileSync(file, await exportPKCS8(privateKey));
    const jwk = { ...(await exportJWK(publicKey)), kid: "orders-1", use: "sig", alg: ALGORITHM };
    console.log(JSON.stringify({ keys: [jwk] }));
};

const sign = async (issuer, clientId, file) => {
    const key = await importPKCS8(readFileSync(file, "utf8"), ALGORITHM);
    return new SignJWT({})
        .setProtectedHeader({ alg: ALGORITHM, kid: "orders-1", typ: "client-authentication+jwt" })
        .setIssuer(clientId)
        .setSubject(clientId)
        .setAudience(issuer)
        .setIssuedAt()
        .setExpirationTime("1m")
        .setJti(randomUUID())
        .sign(key);
};

const forged = (token) => {
    const [header, payload, signature] = token.split(".");
    return `${header}.${payload}.${signature[0] === "A" ? "B" : "A"}${signature.slice(1)}`;
};

const asserted = (assertion) => ({
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: assertion,
});

// What each way shows in a request and over which connection: what is good, what is not, and what the token is bound to.
const plain = grpc.credentials.createInsecure();
const ways = {
    secret: (issuer, clientId, secret) => ({
        good: [plain, { client_secret: secret }],
        bad: [plain, { client_secret: `${secret}x` }],
    }),
    private_key_jwt: async (...given) => {
        const own = asserted(await sign(...given));
        return { good: [plain, own], bad: [plain, own] };
    },
    federated: (issuer, clientId, file) => {
        const token = readFileSync(file, "utf8");
        return { good: [plain, asserted(token)], bad: [plain, asserted(forged(token))] };
    },
    mtls: (issuer, clientId, ...files) => {
        const [roots, certificate, key] = files.map((file) => readFileSync(file));
        const fingerprint = new X509Certificate(certificate).fingerprint256.replaceAll(":", "");
        return {
            good: [grpc.credentials.createSsl(roots, key, certificate), {}],
            bad: [grpc.credentials.createSsl(roots), {}],
            cnf: { "x5t#S256": Buffer.from(fingerprint, "hex").toString("base64url") },
        };
    },
};

const proveBy = (way) => async (folder, address, issuer, clientId, audience, ...given) => {
    const files = ["tessera/v1/auth.proto", "tessera/v1/keys.proto"];
    const contract = protoLoader.loadSync(files, { includeDirs: [folder], keepCase: true });
    const { Auth, Keys } = grpc.loadPackageDefinition(contract).tessera.v1;
    const call = async (Service, method, request, credentials) => {
        const service = new Service(address, credentials);
        try {
            return await promisify(service[method].bind(service))(request);
        } finally {
            service.close();
        }
    };
    const ask = ([credentials, proof]) => {
        const request = { client_id: clientId, audience: [audience], scope: ["read"], ...proof };
        return call(Auth, "IssueServiceToken", request, credentials);
    };

    const { good, bad, cnf } = await ways[way](issuer, clientId, ...given);
    const { tokens } = await ask(good);
    const { jwks_json } = await call(Keys, "GetJwks", {}, good[0]);
    const { payload } = await jwtVerify(tokens.access_token, createLocalJWKSet(JSON.parse(jwks_json)), {
        algorithms: ["ES256"], typ: "at+jwt", issuer, audience, subject: clientId, requiredClaims: ["exp", "iat"],
    });
    assert.deepEqual(payload.cnf, cnf);
    await assert.rejects(ask(bad), (error) => error.code === grpc.status.UNAUTHENTICATED);
    console.log(JSON.stringify(payload));
};

const [command, ...given] = process.argv.slice(2);
await (command === "key" ? makeKey : proveBy(command))(...given);

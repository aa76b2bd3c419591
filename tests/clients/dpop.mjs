// Somebody holds a key and shows it with each call (DPoP, RFC 9449): jose signs the proofs, grpc-js brings them.
//
//     dpop.mjs PROTO_FOLDER ADDRESS USERNAME PASSWORD

import { strict as assert } from "node:assert";
import { createHash, randomUUID } from "node:crypto";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { calculateJwkThumbprint, decodeJwt, exportJWK, generateKeyPair, SignJWT } from "jose";

const ALGORITHM = "EdDSA";

const [folder, address, username, password] = process.argv.slice(2);
const files = ["tessera/v1/auth.proto", "tessera/v1/session.proto"];
const contract = protoLoader.loadSync(files, { includeDirs: [folder], keepCase: true, longs: Number });
const { Auth, Session } = grpc.loadPackageDefinition(contract).tessera.v1;
const credentials = grpc.credentials.createInsecure();
const auth = new Auth(address, credentials);
const sessions = new Session(address, credentials);

const newHolder = async () => {
    const { privateKey, publicKey } = await generateKeyPair(ALGORITHM, { crv: "Ed25519" });
    const jwk = await exportJWK(publicKey);
    return { privateKey, jwk, thumbprint: await calculateJwkThumbprint(jwk) };
};

const prove = ({ privateKey, jwk }, path, token) => {
    const claims = { htm: "POST", htu: path };
    if (token) claims.ath = createHash("sha256").update(token).digest("base64url");
    const proof = new SignJWT(claims).setProtectedHeader({ typ: "dpop+jwt", alg: ALGORITHM, jwk });
    return proof.setIssuedAt().setJti(randomUUID()).sign(privateKey);
};

const call = async (client, method, request, holder, token) => {
    const metadata = new grpc.Metadata();
    metadata.set("dpop", await prove(holder, client[method].path, token));
    if (token) metadata.set("authorization", `DPoP ${token}`);
    return promisify(client[method].bind(client))(request, metadata);
};

const refused = (...given) =>
    assert.rejects(call(...given), (error) => error.code === grpc.status.UNAUTHENTICATED);

const [holder, other] = [await newHolder(), await newHolder()];
const login = await call(auth, "Login", { username, password, device: { type: "desktop" } }, holder);
assert.equal(login.tokens.token_type, "DPoP");
assert.equal(login.session.dpop_jkt, holder.thumbprint);
assert.deepEqual(decodeJwt(login.tokens.access_token).cnf, { jkt: holder.thumbprint });

const session_id = login.tokens.session_id;
let shown = await call(sessions, "GetSession", { session_id }, holder, login.tokens.access_token);
assert.equal(shown.session.dpop_jkt, holder.thumbprint);

const { refresh_token } = login.tokens;
await refused(auth, "Refresh", { refresh_token }, other);
const { tokens } = await call(auth, "Refresh", { refresh_token }, holder);
assert.equal(tokens.token_type, "DPoP");
shown = await call(sessions, "GetSession", { session_id }, holder, tokens.access_token);
assert.equal(shown.session.generation, 1);

await refused(sessions, "GetSession", { session_id }, other, tokens.access_token);
await call(auth, "Logout", {}, holder, tokens.access_token);
await refused(sessions, "GetSession", { session_id }, holder, tokens.access_token);
console.log("signed in, called, refreshed, called, refused");
auth.close();
sessions.close();

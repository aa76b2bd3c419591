// jose decrypts a token and checks what was in it, and its claims are printed as one line of JSON.
//
//     decrypt.mjs KEY_FILE TOKEN_FILE JWKS_URL ISSUER AUDIENCE
//
// KEY_FILE is the private JWK that the token is encrypted for.

import { readFileSync } from "node:fs";

import { compactDecrypt, errors, importJWK } from "jose";

import { checker } from "./access_token.mjs";

const [keyFile, tokenFile, jwksUrl, issuer, audience] = process.argv.slice(2);
const jwk = JSON.parse(readFileSync(keyFile, "utf8"));
const accepted = {
    keyManagementAlgorithms: ["ECDH-ES+A256KW", "RSA-OAEP-256"],
    contentEncryptionAlgorithms: ["A256GCM"],
};
const check = await checker(jwksUrl, issuer, audience);
try {
    const token = readFileSync(tokenFile, "utf8").trim();
    const { plaintext, protectedHeader } = await compactDecrypt(token, await importJWK(jwk, jwk.alg), accepted);
    if (protectedHeader.cty !== "JWT") throw new errors.JWEInvalid("not said to hold a JWT");
    console.log(JSON.stringify(await check(new TextDecoder().decode(plaintext))));
} catch (error) {
    if (!(error instanceof errors.JOSEError)) throw error;
    console.error(`refused: ${error.code}: ${error.message}`);
    process.exitCode = 1;
}

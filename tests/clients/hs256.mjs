// jose checks a token with the secret that its audience shares with the issuer, and its claims are printed as JSON.
//
//     hs256.mjs SECRET_JWK_FILE TOKEN JWKS_URL ISSUER AUDIENCE
//
// With the issuer's public keys the same token is refused, and so is one that was changed.

import { readFileSync } from "node:fs";

import { errors, importJWK, jwtVerify } from "jose";

import { checker } from "./access_token.mjs";

const [secretFile, token, jwksUrl, issuer, audience] = process.argv.slice(2);
const secret = await importJWK(JSON.parse(readFileSync(secretFile, "utf8")));
const expected = {
    algorithms: ["HS256"], issuer, audience, typ: "at+jwt", requiredClaims: ["iss", "aud", "sub", "exp", "iat"],
};
const check = async (token) => (await jwtVerify(token, secret, expected)).payload;

const claims = await check(token);
const [head, payload, signature] = token.split(".");
const other = payload[20] === "A" ? "B" : "A";
const withPublicKeys = await checker(jwksUrl, issuer, audience);
for (const [what, refuse, forged] of [
    ["a changed claim", check, `${head}.${payload.slice(0, 20)}${other}${payload.slice(21)}.${signature}`],
    ["no signature", check, `${head}.${payload}.`],
    ["a shared secret where a public key is expected", withPublicKeys, token],
]) {
    try {
        await refuse(forged);
    } catch (error) {
        if (error instanceof errors.JOSEError) continue;
        throw error;
    }
    console.error(`accepted, though bad: ${what}`);
    process.exit(1);
}
console.log(JSON.stringify(claims));

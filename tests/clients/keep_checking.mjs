// jose checks one token after another with a JWKS that it keeps, as a service does while the issuer's keys rotate.
//
//     keep_checking.mjs JWKS_URL ISSUER AUDIENCE ALGORITHM KEEP_SECONDS COOLDOWN_SECONDS
//
// Reads tokens that the issuer's own keys signed, one a line, and answers each at once: `ok KID` or `refused ERROR`. A JWKS
// is fetched anew after KEEP_SECONDS, and for an unknown kid not before COOLDOWN_SECONDS have passed since the last time.

import { createInterface } from "node:readline";

import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const [jwksUrl, issuer, audience, algorithm, keep, cooldown] = process.argv.slice(2);
const issuerKeys = createRemoteJWKSet(new URL(jwksUrl), {
    cacheMaxAge: Number(keep) * 1000,
    cooldownDuration: Number(cooldown) * 1000,
});
const expected = { issuer, audience, algorithms: [algorithm], typ: "at+jwt", requiredClaims: ["exp"] };
let checked = 0;
let refused = 0;
const seen = new Set();

for await (const line of createInterface({ input: process.stdin })) {
    checked += 1;
    try {
        const { kid } = (await jwtVerify(line.trim(), issuerKeys, expected)).protectedHeader;
        seen.add(kid);
        console.log(`ok ${kid}`);
    } catch (error) {
        // Anything else, as an unreachable issuer, also leaves the token unchecked.
        refused += 1;
        console.log(`refused ${error instanceof errors.JOSEError ? error.code : error.name}: ${error.message}`);
    }
}

console.log(`${checked} checked, ${refused} refused, ${seen.size} keys seen`);
process.exitCode = refused > 0 ? 1 : 0;

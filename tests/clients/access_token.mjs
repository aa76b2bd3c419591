// Checks access tokens as a careful owner of a service does: with the issuer's keys, or with a session's key that one of
// them endorses. Other scripts import it.

import { calculateJwkThumbprint, createLocalJWKSet, decodeProtectedHeader, errors, jwtVerify } from "jose";

// All that the service signs with. Each key names its one algorithm, and jose holds a token to that.
const ALGORITHMS = ["ES256", "ES384", "EdDSA", "RS256", "PS256"];

// What is no token at all is a TypeError to jose, like a mistake of one's own.
const headerOf = (token) => {
    try {
        return decodeProtectedHeader(token);
    } catch {
        throw new errors.JWTInvalid("not a token");
    }
};

// Gives a function that gives the claims of a good token; a JOSEError tells what is wrong with any other.
export const checker = async (jwksUrl, issuer, audience, algorithms = ALGORITHMS) => {
    const jwks = await (await fetch(jwksUrl)).json();
    const issuerKeys = createLocalJWKSet(jwks);
    const isIssuers = (kid) => jwks.keys.some((key) => key.kid === kid);
    const access = {
        algorithms, issuer, audience, typ: "at+jwt", requiredClaims: ["iss", "aud", "sub", "exp", "iat"],
    };
    const endorsement = {
        algorithms, issuer, typ: "session-key+jwt", requiredClaims: ["iss", "sid", "sub", "exp", "cnf"],
    };

    return async (token) => {
        const header = headerOf(token);
        if (isIssuers(header.kid)) return (await jwtVerify(token, issuerKeys, access)).payload;

        if (typeof header.skc !== "string" || !isIssuers(headerOf(header.skc).kid)) {
            throw new errors.JWKSNoMatchingKey("neither the issuer's key nor one that it endorses");
        }
        const endorsed = (await jwtVerify(header.skc, issuerKeys, endorsement)).payload;
        const { jwk } = endorsed.cnf;
        if ((await calculateJwkThumbprint(jwk, "sha256")) !== header.kid) {
            throw new errors.JWKInvalid("another key is endorsed");
        }
        // As a set of one key, since jose holds a token to its key's algorithm only where that lies in a set.
        const claims = (await jwtVerify(token, createLocalJWKSet({ keys: [jwk] }), access)).payload;
        if (claims.sid !== endorsed.sid || claims.sub !== endorsed.sub) {
            throw new errors.JWTInvalid("the key of another session");
        }
        return claims;
    };
};

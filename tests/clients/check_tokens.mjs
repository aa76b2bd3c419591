// jose accepts the good tokens and refuses the bad ones.
//
//     check_tokens.mjs FILE
//
// FILE is JSON: {"issuer": …, "audience": …, "jwks_url": …, "algorithms": […], "good": {NAME: TOKEN}, "bad": {NAME: TOKEN}}.

import { readFileSync } from "node:fs";

import { errors } from "jose";

import { checker } from "./access_token.mjs";

const given = JSON.parse(readFileSync(process.argv[2], "utf8"));
const check = await checker(given.jwks_url, given.issuer, given.audience, given.algorithms);
const wrong = [];

// Null where the token is accepted. Any other error than a refusal ends the script.
const refusalOf = async (token) => {
    try {
        await check(token);
        return null;
    } catch (error) {
        if (!(error instanceof errors.JOSEError)) throw error;
        return `${error.code}: ${error.message}`;
    }
};

for (const [name, token] of Object.entries(given.good)) {
    const refusal = await refusalOf(token);
    if (refusal) wrong.push(`refused, though good: ${name}: ${refusal}`);
}

for (const [name, token] of Object.entries(given.bad)) {
    const refusal = await refusalOf(token);
    if (refusal) console.log(`${name}: ${refusal}`);
    else wrong.push(`accepted, though bad: ${name}: ${token}`);
}

if (wrong.length > 0) {
    console.error(wrong.join("\n"));
    process.exitCode = 1;
}

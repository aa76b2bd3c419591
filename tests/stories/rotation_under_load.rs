//! Verifiers with a cached key set don't notice that the issuer's keys rotate: not one token is refused.
//! Against the binary, since they look at the real clock.

use std::{collections::BTreeSet, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::{Instant, timeout},
};

use crate::support::{
    Envoy, FENCE, Home, Outcome, PASSWORD, Provider, client, login_as, parts_of, refresh_with, story,
};

story!(no_verifier_notices_two_rotations, sqlite: BinarySqlite, postgres: Binary);

const ISSUER: &str = "http://127.0.0.1:50051";
const AUDIENCE: &str = "orders";
/// A key set is kept for half of what a key is published before it signs, as its Cache-Control says.
const SETTINGS: &str = "
    [signing]
    user_tokens = \"issuer\"
    rotate_every = \"6s\"
    publish_before = \"3s\"
    [database]
    poll_interval = \"100ms\"
";
const KEEP_SECONDS: &str = "1";
/// For longer than the test: an unknown key is not looked for, so that the cache alone must do.
const COOLDOWN_SECONDS: &str = "3600";

/// A client that keeps checking.
struct Checker {
    script: &'static str,
    process: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Checker {
    fn start(script: &'static str, jwks_url: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut process = client(script)
            .args([jwks_url, ISSUER, AUDIENCE, "ES256", KEEP_SECONDS, COOLDOWN_SECONDS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().ok_or("its input is piped")?;
        let answers = BufReader::new(process.stdout.take().ok_or("its output is piped")?).lines();
        Ok(Self { script, process, input, answers })
    }

    async fn check(&mut self, token: &str, kid: &str) -> Outcome {
        self.input.write_all(format!("{token}\n").as_bytes()).await?;
        let answer = timeout(FENCE, self.answers.next_line()).await??.ok_or("no answer")?;
        assert_eq!(answer, format!("ok {kid}"), "{}", self.script);
        Ok(())
    }

    async fn end(mut self, checked: usize, keys: usize) -> Outcome {
        drop(self.input);
        let end = self.answers.next_line().await?;
        assert_eq!(end, Some(format!("{checked} checked, 0 refused, {keys} keys seen")), "{}", self.script);
        assert_eq!(self.process.wait().await?.code(), Some(0), "{}", self.script);
        Ok(())
    }
}

async fn no_verifier_notices_two_rotations(home: Home) -> Outcome {
    let server = home.start_with(SETTINGS).await?;
    server.anna().await?;
    let page = server.get("/.well-known/jwks.json").await?;
    assert!(page.contains(&format!("cache-control: public, max-age={KEEP_SECONDS}")), "{page}");
    let jwks_url = format!("http://{}/.well-known/jwks.json", server.address);
    let mut checkers =
        [Checker::start("keep_checking.py", &jwks_url)?, Checker::start("keep_checking.mjs", &jwks_url)?];
    let envoy = Envoy::start(&[Provider {
        name: AUDIENCE,
        issuer: ISSUER,
        audience: AUDIENCE,
        jwks_address: server.address,
        jwks_path: "/.well-known/jwks.json",
        keep_seconds: KEEP_SECONDS.parse()?,
    }])
    .await?;

    let mut login = login_as("anna", PASSWORD, "web");
    login.audience = vec![AUDIENCE.to_owned()];
    let mut tokens = server.auth().login(login).await?.into_inner().tokens.ok_or("no tokens")?;
    let (mut seen, mut checked, begun) = (BTreeSet::new(), 0, Instant::now());
    let mut after_the_second = 0;
    // Two rotations, and traffic well beyond the second.
    while after_the_second < 100 {
        let (header, _) = parts_of(&tokens.access_token)?;
        let kid = header["kid"].as_str().ok_or("no kid")?.to_owned();
        for checker in &mut checkers {
            checker.check(&tokens.access_token, &kid).await?;
        }
        let answer = envoy.get(AUDIENCE, &tokens.access_token).await?;
        assert_eq!(answer.status, 200, "{kid}: {answer:?}");
        checked += 1;
        seen.insert(kid);
        after_the_second += usize::from(seen.len() > 2);
        assert!(begun.elapsed() < FENCE, "{} keys after {checked} tokens", seen.len());
        let refreshed = server.auth().refresh(refresh_with(&tokens.refresh_token)).await?;
        tokens = refreshed.into_inner().tokens.ok_or("no tokens")?;
    }
    for checker in checkers {
        checker.end(checked, seen.len()).await?;
    }
    server.stop().await
}
